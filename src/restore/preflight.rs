//! Everything that can be known before GitLab is touched, and the plan that follows from it. Tells
//! all findings, not the first.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{AtFlags, StatVfsMountFlags, StatxAttributes, StatxFlags};

use crate::catalog::{Catalog, CompleteRun, Whose};
use crate::config::Config;
use crate::host::beneath::{self, Directory};
use crate::host::{mounts, remedy};
use crate::open;
use crate::paths::{self, RootDirectory};
use crate::repository::Engine;
use crate::run::{manifest, space, verify};
use crate::runs::record::write_json;
use crate::runs::restore::{Beside, Journal, Layout, Places, Request, RestorePlan, Root, State};
use crate::runs::{Manifest, Part};
use crate::systemd::Manager;
use crate::values::RunId;

use super::databases::exchange::Server;
use super::{databases, moves, redis, rehearsal, undo};

/// Checks, and leaves the plan for the units that follow.
pub async fn preflight(config: &Config, request: &Request) -> Result<()> {
    let plan = match &request.run {
        Some(run) => {
            let plan = of_run(config, request, run).await?;
            if let Some(part) = &plan.postgresql {
                rehearsal::rehearse(config, part, &plan.databases).await.context("postgresql")?;
            }
            plan
        }
        None => {
            let journal = Journal::load(&RootDirectory::host())?
                .context("no restore ended half way: there is nothing to put back")?;
            // Before GitLab is stopped for it.
            if journal.state != State::Staging {
                undo::prove(&journal, &mut Server::of(config)?).await?;
            }
            nothing()
        }
    };
    write_json(Path::new(paths::RESTORE_PLAN), &plan)
}

/// A plan to put back only.
fn nothing() -> RestorePlan {
    RestorePlan {
        run: None,
        postgresql: None,
        databases: Vec::new(),
        redis_part: None,
        redis: Vec::new(),
        files: None,
        layouts: Vec::new(),
        beside: None,
    }
}

async fn of_run(config: &Config, request: &Request, run: &RunId) -> Result<RestorePlan> {
    let engine = open::in_run(config)?;
    let catalog = Catalog::read_afresh(&*engine, Whose::Run(run), run)?;
    let run = catalog.pick(Some(run))?;
    let manifest = &run.manifest;
    let mut findings = Findings::default();
    findings.add("names", request.check_names(manifest));
    if let Some(mismatch) = gitlab_mismatch(manifest) {
        match request.allow_version_mismatch {
            true => tracing::warn!("{mismatch}: restoring all the same, as asked for"),
            false => findings.add(
                "gitlab",
                bail_with(format!(
                    "{mismatch}: install that version, or insist by --allow-version-mismatch"
                )),
            ),
        }
    }
    let mut plan = RestorePlan {
        run: Some(manifest.id.clone()),
        postgresql: part(run, "postgresql", request, &mut findings),
        databases: Vec::new(),
        redis_part: part(run, "redis", request, &mut findings),
        redis: Vec::new(),
        files: None,
        layouts: Vec::new(),
        beside: None,
    };
    if let Some(postgresql) = &plan.postgresql {
        plan.databases =
            findings.take("postgresql", databases::plan(config, manifest, postgresql).await);
    }
    if plan.redis_part.is_some() {
        let manager = Manager::connect().await?;
        plan.redis = findings.take("redis", redis::plan(config, request, manifest, &manager).await);
    }
    if let Some(files) =
        find(manifest, "files").filter(|_| request.wants("files") || request.wants("config"))
    {
        findings.add("files", verify::unchanged(run, files).map(drop));
        let (put, beside) = roots(config, request, files);
        plan.files = Some(files.snapshot.clone());
        plan.layouts = findings.take("files", layouts(&put, &manifest.id));
        plan.beside = (!beside.is_empty()).then(|| beside_layout(beside, &manifest.id));
    }
    findings.add("space", enough(&plan, &*engine, request.path.as_deref()));
    findings.end()?;
    ensure!(
        !plan.databases.is_empty()
            || !plan.redis.is_empty()
            || !plan.layouts.is_empty()
            || plan.beside.is_some(),
        "nothing of run {} is asked for",
        manifest.id
    );
    Ok(plan)
}

/// Every reason for which the restore could not succeed.
#[derive(Default)]
struct Findings(Vec<String>);

impl Findings {
    fn add(&mut self, what: &str, result: Result<()>) {
        if let Err(error) = result {
            self.0.push(format!("{what}: {error:#}"));
        }
    }

    fn take<T: Default>(&mut self, what: &str, result: Result<T>) -> T {
        result.unwrap_or_else(|error| {
            self.0.push(format!("{what}: {error:#}"));
            T::default()
        })
    }

    fn end(self) -> Result<()> {
        if self.0.is_empty() { Ok(()) } else { bail!("{}", self.0.join("\n")) }
    }
}

fn bail_with(text: String) -> Result<()> {
    Err(anyhow::Error::msg(text))
}

fn find<'a>(manifest: &'a Manifest, name: &str) -> Option<&'a Part> {
    manifest.parts.iter().find(|part| part.name == name)
}

/// A part of dumps, if it is asked for. One that is named must be there.
fn part(run: &CompleteRun, name: &str, request: &Request, findings: &mut Findings) -> Option<Part> {
    if !request.wants(name) {
        return None;
    }
    let found = find(&run.manifest, name);
    match found {
        Some(part) => findings.add(name, verify::unchanged(run, part).map(drop)),
        None if request.only.iter().any(|only| only == name) => {
            findings.add(name, bail_with(format!("run {} has no such part", run.manifest.id)));
        }
        None => {}
    }
    found.cloned()
}

/// How GitLab here differs from the one that was backed up; the edition is in the version (`-ee`).
fn gitlab_mismatch(manifest: &Manifest) -> Option<String> {
    let there = manifest
        .versions
        .iter()
        .find(|component| component.name == "gitlab")
        .map_or("unknown", |gitlab| &gitlab.version);
    let here = manifest::gitlab_version();
    match (there, here.as_str()) {
        ("unknown", "unknown") => {
            tracing::warn!(
                "GitLab's version is known neither here nor in the run: it is not compared"
            );
            None
        }
        (there, here) if there == here => None,
        (there, here) => Some(format!("the run is of GitLab {there}, and here is GitLab {here}")),
    }
}

/// The paths that are put in place, and the configuration that is only laid out for comparison.
fn roots(config: &Config, request: &Request, files: &Part) -> (Vec<PathBuf>, Vec<PathBuf>) {
    if let Some(path) = &request.path {
        return (vec![path.clone()], Vec::new());
    }
    let (configuration, data): (Vec<PathBuf>, Vec<PathBuf>) =
        files.paths.iter().cloned().partition(|path| {
            config.files.configuration.iter().any(|inner| path.starts_with(inner))
        });
    let mut put = if request.wants("files") { data } else { Vec::new() };
    if request.wants("config") {
        put.extend(configuration);
        return (put, Vec::new());
    }
    (put, configuration)
}

/// statx(2): whether it has the attribute immutable or append-only, chattr(1).
fn immutable(path: &Path) -> Result<bool> {
    let found =
        rustix::fs::statx(rustix::fs::CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty());
    let found = found.with_context(|| format!("cannot look at {}", path.display()))?;
    Ok(found.stx_attributes.intersects(StatxAttributes::IMMUTABLE | StatxAttributes::APPEND))
}

/// One layout for each mounted file system: everything in it can be renamed within it.
fn layouts(roots: &[PathBuf], run: &RunId) -> Result<Vec<Layout>> {
    let mounts: Vec<PathBuf> = mounts::seen()?.into_iter().map(|mount| mount.target).collect();
    let mut layouts: BTreeMap<(u64, PathBuf), Layout> = BTreeMap::new();
    for path in roots {
        let here = path.symlink_metadata().ok();
        ensure!(
            !here.as_ref().is_some_and(fs::Metadata::is_symlink),
            "{} is a symbolic link on this host: remove it, or restore with --into",
            path.display()
        );
        let fixed = here.is_some() && immutable(path)?;
        ensure!(
            !fixed,
            "{} may not be renamed, not even by root: 'chattr -i -a' first",
            path.display()
        );
        let parent = existing_above(path)?;
        let opened = Directory::open(&parent)?;
        let above = rustix::fs::fstat(&opened)
            .with_context(|| format!("cannot read {}", parent.display()))?;
        // What is above it, and mounted in it, is so by where it is, and not by the links of root's
        // that lead there.
        let real_parent = opened.real()?;
        let real = real_parent.join(path.strip_prefix(&parent)?);
        if let Some(inside) =
            mounts.iter().find(|mount| mount.starts_with(&real) && **mount != real)
        {
            bail!(
                "{} is a file system of its own inside {}: restore with --into and move its content by hand",
                inside.display(),
                path.display()
            );
        }
        let mount = here.as_ref().is_some_and(|here| {
            here.is_dir() && (here.dev() != above.st_dev || mounts.contains(&real))
        });
        let (base, device) = match (&here, mount) {
            (Some(here), true) => (real, here.dev()),
            _ => (real_parent, above.st_dev),
        };
        // Not even within one file system is there a rename from one mount to another.
        let within = mounts
            .iter()
            .filter(|mount| base.starts_with(mount))
            .max_by_key(|mount| mount.as_os_str().len());
        let within = within.cloned().unwrap_or_else(|| PathBuf::from("/"));
        let base = closed(&base, &within);
        let system = rustix::fs::statvfs(&base)
            .with_context(|| format!("cannot look at {}", base.display()))?;
        ensure!(
            !system.f_flag.contains(StatVfsMountFlags::RDONLY),
            "{} is read-only for the units of a restore, and {} is to come there: name that path in [files] paths, and '{}'",
            base.display(),
            path.display(),
            remedy::install()
        );
        let root = Root { path: path.clone(), mount };
        match layouts.entry((device, within)) {
            Entry::Occupied(mut layout) => layout.get_mut().roots.push(root),
            Entry::Vacant(place) => {
                let kept = unused(base.join(format!("gitlab-backup-not-in-{run}")))?;
                place.insert(Layout { places: Places::planned(&base)?, kept, roots: vec![root] });
            }
        }
    }
    Ok(layouts.into_values().collect())
}

/// The nearest directory at or above `base`, within the mount, in which nobody but root can rename;
/// `base` where there is none.
fn closed(base: &Path, mount: &Path) -> PathBuf {
    let above = base.ancestors().take_while(|above| above.starts_with(mount));
    above.into_iter().find(|above| beneath::trusted(above).is_ok()).unwrap_or(base).to_owned()
}

/// `path`, or with a number behind it what is not there yet: an earlier restore of the same run may
/// have kept something as well.
fn unused(path: PathBuf) -> Result<PathBuf> {
    let numbered = (2..).map(|number| PathBuf::from(format!("{}-{number}", path.display())));
    for path in std::iter::once(path.clone()).chain(numbered) {
        if !moves::is_there(&path)? {
            return Ok(path);
        }
    }
    Ok(path)
}

/// The deepest directory above `path` that is there.
fn existing_above(path: &Path) -> Result<PathBuf> {
    let above = path.ancestors().skip(1).find(|path| path.is_dir());
    above
        .map(Path::to_owned)
        .with_context(|| format!("nothing above {} is a directory", path.display()))
}

fn beside_layout(roots: Vec<PathBuf>, run: &RunId) -> Beside {
    Beside { directory: Path::new(paths::RESTORED_CONFIGURATION).join(run.as_str()), roots }
}

/// Room for everything beside what is there. What a database takes is asked of its server's file
/// system only if that can be seen from here.
fn enough(plan: &RestorePlan, engine: &dyn Engine, asked: Option<&Path>) -> Result<()> {
    let mut needed = space::Needed::default();
    let dumps: u64 =
        [&plan.postgresql, &plan.redis_part].into_iter().flatten().map(|part| part.bytes).sum();
    needed.add(Path::new(paths::STATE), dumps);
    for redis in &plan.redis {
        needed.add(&redis.directory, plan.redis_part.as_ref().map_or(0, |part| part.bytes));
    }
    if let Some(snapshot) = &plan.files {
        let layouts = plan.layouts.iter().map(|layout| {
            let roots: Vec<&PathBuf> = layout.roots.iter().map(|root| &root.path).collect();
            (&layout.places.staged.path, roots)
        });
        let beside =
            plan.beside.iter().map(|beside| (&beside.directory, beside.roots.iter().collect()));
        let all: Vec<(&PathBuf, Vec<&PathBuf>)> = layouts.chain(beside).collect();
        let mut bytes = vec![0; all.len()];
        let mut seen = false;
        engine
            .list(snapshot, &mut |path, size| {
                seen |= asked.is_some_and(|asked| path.starts_with(asked));
                let Some(size) = size else { return };
                let within = |(_, roots): &(&PathBuf, Vec<&PathBuf>)| {
                    roots.iter().any(|root| path.starts_with(root))
                };
                if let Some(index) = all.iter().position(within) {
                    bytes[index] += size;
                }
            })
            .context("the run's files cannot be listed")?;
        if let Some(asked) = asked.filter(|_| !seen) {
            bail!("{} is not in the run", asked.display());
        }
        for ((directory, _), bytes) in all.iter().zip(bytes) {
            needed.add(directory, bytes);
        }
    }
    needed.check()
}
