//! `restore --into`: extracts a run into a directory. Changes nothing live.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::config::Config;
use crate::host::beneath::Directory;
use crate::host::text;
use crate::runs::{Manifest, Part};
use crate::stores::files::{self, alternates};
use crate::stores::{extract, space};
use crate::{note, say};

use super::RestoreArgs;
use crate::commands::verify::SCRATCH;

/// The maximum number of extracted repositories to check with Git: a check of a large repository
/// takes long.
const CHECKED: usize = 20;

/// Extracts the chosen parts, or one path, into the directory `into`.
pub(super) fn extract_into(
    config: &Config,
    manifest: &Manifest,
    into: &Path,
    args: &RestoreArgs,
) -> Result<()> {
    let parts = chosen_parts(manifest, args)?;
    let into = std::path::absolute(into).context("the current directory does not exist")?;
    let target = Target::find(&into)?;
    describe(manifest, &parts, &into, args);
    if args.dry_run {
        return Ok(());
    }
    let target = target.create()?;
    if args.path.is_none() {
        let mut needed = space::Needed::default();
        needed.add(&into, parts.iter().map(|part| part.bytes).sum());
        needed.check()?;
    }
    for part in parts {
        extract::in_child(config, &part.snapshot, &target.reachable(), args.path.as_slice())
            .with_context(|| {
                format!(
                    "part '{}' could not be extracted; the data in {} is incomplete",
                    part.name,
                    into.display()
                )
            })?;
        if let Some(path) = &args.path {
            complete_path(config, part, &target, path)
                .with_context(|| format!("the data in {} is incomplete", into.display()))?;
        }
        say!("done: {}", part.name);
    }
    Ok(())
}

/// The directory to extract into, which may not exist yet.
struct Target {
    /// The directory, if it exists.
    existing: Option<Directory>,
    /// The nearest existing directory above it, and its path below that.
    above: Directory,
    below: PathBuf,
}

impl Target {
    /// Looks up the directory. Fails if it is not empty, or if other users can change it.
    fn find(into: &Path) -> Result<Self> {
        let parent =
            into.parent().with_context(|| format!("{} is the root directory", into.display()))?;
        let (above, missing) = Directory::nearest(parent)?;
        let below = missing.join(into.file_name().unwrap_or_default());
        let existing = match above.look(&below)? {
            Some(_) => Some(above.below(&below)?),
            None => None,
        };
        if let Some(existing) = &existing {
            ensure!(
                existing.entries()?.is_empty(),
                "{} is not empty: name an empty or a new directory",
                into.display()
            );
            let stat = existing.stat()?;
            ensure!(
                stat.st_uid == rustix::process::geteuid().as_raw() && stat.st_mode & 0o022 == 0,
                "other users can change {}: name a directory of your own or a new one",
                into.display()
            );
        }
        Ok(Self { existing, above, below })
    }

    /// Creates the directory unless it exists.
    fn create(self) -> Result<Directory> {
        match self.existing {
            Some(existing) => Ok(existing),
            None => self.above.make_all(&self.below, None),
        }
    }
}

/// Prints what is extracted.
fn describe(manifest: &Manifest, parts: &[&Part], into: &Path, args: &RestoreArgs) {
    say!("run {} of {}, into {}:", manifest.id, manifest.host, into.display());
    if let Some(path) = &args.path {
        say!("  {}", text::path(path));
        return;
    }
    for part in parts {
        let paths: Vec<String> = part.paths.iter().map(|path| path.display().to_string()).collect();
        say!(
            "  {:<11} {:>11}  {}",
            part.name,
            indicatif::BinaryBytes(part.bytes).to_string(),
            paths.join(", ")
        );
    }
}

/// Extracts the object pools that the repositories in `path` need, and checks the repositories.
fn complete_path(config: &Config, part: &Part, target: &Directory, path: &Path) -> Result<()> {
    if let Some(repository) = path
        .ancestors()
        .skip(1)
        .find(|above| above.extension().is_some_and(|extension| extension == "git"))
    {
        note!(
            "warning: this is a part of {}: Git needs the whole repository, and the object pools \
             that it uses",
            text::path(repository)
        );
    }
    let found = alternates::find_repositories(target, path, &part.paths)?;
    let repositories = found.repositories.clone();
    let result = extract_pools(config, part, target, found);
    check_repositories(config, part, &repositories);
    result
}

/// Runs git fsck on the extracted repositories and prints the results.
fn check_repositories(config: &Config, part: &Part, repositories: &[PathBuf]) {
    for repository in repositories.iter().take(CHECKED) {
        match files::ensure_git_installed()
            .and_then(|()| files::fsck(config, part, repository, Path::new(SCRATCH)))
        {
            Ok(seen) => say!("git {}: {seen}", text::path(repository)),
            // Only a warning: the repository may have been damaged before it was backed up.
            Err(error) => {
                note!("warning: git fsck of {}: {}", text::path(repository), text::why(&error))
            }
        }
    }
    if repositories.len() > CHECKED {
        note!(
            "{} more repositories were not checked ('gitlab-backup verify --all-repositories')",
            repositories.len() - CHECKED
        );
    }
}

/// Extracts the object pools that the `first` repositories use, and the pools that those use: a
/// fork has most of its objects in a pool, and is unreadable without it.
fn extract_pools(
    config: &Config,
    part: &Part,
    target: &Directory,
    first: alternates::FoundRepositories,
) -> Result<()> {
    let mut open = vec![first];
    let mut wrong = Vec::new();
    while let Some(found) = open.pop() {
        wrong.extend(found.wrong);
        for store in found.missing {
            // The whole repository and not only its objects: it may use another pool.
            let pool = store.parent().unwrap_or(&store).to_owned();
            let extracted = extract::in_child(
                config,
                &part.snapshot,
                &target.reachable(),
                std::slice::from_ref(&pool),
            );
            if let Err(error) = extracted {
                wrong.push(format!(
                    "{}, whose objects are needed: {}",
                    text::path(&pool),
                    text::why(&error)
                ));
            } else if target.look(store.strip_prefix("/").unwrap_or(&store))?.is_none() {
                wrong.push(format!("{} is not in the run", text::path(&store)));
            } else {
                say!("  also {}, whose objects are needed", text::path(&pool));
                open.push(alternates::find_repositories(target, &pool, &part.paths)?);
            }
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("; "));
    Ok(())
}

/// The parts to extract: the one that contains `--path`, those of `--only`, or all.
fn chosen_parts<'a>(manifest: &'a Manifest, args: &RestoreArgs) -> Result<Vec<&'a Part>> {
    let names =
        || manifest.parts.iter().map(|part| part.name.as_str()).collect::<Vec<_>>().join(", ");
    if let Some(path) = &args.path {
        let within = |part: &&Part| part.paths.iter().any(|root| path.starts_with(root));
        let part = manifest.parts.iter().find(within);
        return Ok(vec![part.with_context(|| {
            format!("{} is in no part of run {}", path.display(), manifest.id)
        })?]);
    }
    if let Some(unknown) =
        args.only.iter().find(|name| !manifest.parts.iter().any(|part| part.name == **name))
    {
        bail!("run {} has no part '{unknown}': {}", manifest.id, names());
    }
    Ok(manifest
        .parts
        .iter()
        .filter(|part| args.only.is_empty() || args.only.contains(&part.name))
        .collect())
}
