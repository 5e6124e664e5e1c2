//! How each path is captured: decided before GitLab is touched, by what its file system can do, and
//! written down for all that follows.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use rustix::fs::{FileType, Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::config::{Config, EngineName, Files, Method};
use crate::finding::Finding;
use crate::frozen::{self, At, How};
use crate::host::beneath::{Directory, Held};
use crate::host::own;
use crate::paths;
use crate::runs::record::{read_json, write_json};
use crate::values::RunId;
use crate::volume::{self, Kind, Mount, Place, Snapshot};

/// What is captured how, in one run.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct CapturePlan {
    /// One for each path, in the configuration's order.
    pub captures: Vec<Capture>,
    /// The snapshots that are made in the window; written down before, so that they can be undone.
    pub snapshots: Vec<Snapshot>,
}

/// How one path is captured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Capture {
    /// The path.
    pub path: PathBuf,
    /// How.
    pub way: Way,
}

/// A way to capture a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// A snapshot of its volume.
    Snapshot {
        /// Which of the plan's.
        number: usize,
        /// The path below the volume's root.
        inside: PathBuf,
    },
    /// What changed since the first pass (everything without one) is cloned into this directory.
    Cloned(Held),
    /// What changed since the first pass is copied.
    Copied,
    /// It is stored in the window.
    Live,
}

impl CapturePlan {
    /// The plan of the run that goes on.
    pub fn current() -> Result<Self> {
        read_json(Path::new(paths::FREEZE))?
            .context("it is not decided yet how the files are captured")
    }

    /// The paths that are walked in the window, and how their content is secured; into the
    /// directory that is there for it, or one that is made in the staging area.
    pub fn walked(&self) -> impl Iterator<Item = (&Path, How, Option<&Held>)> {
        self.captures.iter().filter_map(|capture| match &capture.way {
            Way::Cloned(directory) => Some((&*capture.path, How::Clone, Some(directory))),
            Way::Copied => Some((&*capture.path, How::Copy, None)),
            Way::Snapshot { .. } | Way::Live => None,
        })
    }

    /// The directories of ours beside GitLab's.
    pub fn clones(&self) -> Vec<Held> {
        self.captures
            .iter()
            .filter_map(|capture| {
                if let Way::Cloned(held) = &capture.way { Some(held.clone()) } else { None }
            })
            .collect()
    }

    /// Makes them. They are written down before, so that whoever comes later finds what a crash
    /// left.
    fn make(&mut self) -> Result<()> {
        let record = Path::new(paths::CLONES);
        if self.clones().is_empty() {
            return Ok(());
        }
        write_json(record, &self.clones())?;
        for capture in &mut self.captures {
            if let Way::Cloned(held) = &mut capture.way {
                held.make()?;
            }
        }
        write_json(record, &self.clones())
    }

    /// Whether everything is stored in the window.
    pub fn live(&self) -> bool {
        self.captures.iter().any(|capture| capture.way == Way::Live)
    }
}

/// What a path's file system can do, with the reason for it in words.
struct Choice {
    path: PathBuf,
    can: Can,
    why: String,
}

enum Can {
    Snapshot(Kind, Place),
    Clone,
    Copy,
    Live,
}

/// Decides, clears up after an earlier run, and prepares the snapshots: all that can be done before
/// the window.
///
/// Fails if a path cannot be captured in the way that the configuration asks for.
pub fn freeze(config: &Config) -> Result<()> {
    let run = super::run()?;
    let mounts = volume::mounts()?;
    clear(config, &mounts)?;
    let choices = choose(config, &mounts).into_iter().collect::<Result<Vec<_>>>()?;
    let mut plan = plan(&run, &choices)?;
    plan.make()?;
    write_json(Path::new(paths::FREEZE), &plan)?;
    for choice in &choices {
        tracing::info!(path = %choice.path.display(), "{}", choice.why);
    }
    for snapshot in &plan.snapshots {
        volume::volumes(snapshot.kind, &config.files.lvm_snapshot_size).prepare(snapshot)?;
    }
    Ok(())
}

/// How each path would be captured, for `check`. Changes nothing.
pub fn explain(config: &Config) -> Vec<Finding> {
    if config.files.paths.is_empty() {
        return Vec::new();
    }
    match volume::mounts() {
        Ok(mounts) => choose(config, &mounts)
            .into_iter()
            .map(|choice| match choice {
                Ok(Choice { path, why, .. }) => {
                    Finding::of("capture", Ok(format!("{}: {why}", path.display())))
                }
                Err(error) => Finding::of("capture", Err(error)),
            })
            .collect(),
        Err(error) => vec![Finding::of("capture", Err(error))],
    }
}

/// Removes what a run before a crash or a reboot left, found by its name.
fn clear(config: &Config, mounts: &[Mount]) -> Result<()> {
    let relevant: Vec<Mount> = config
        .files
        .paths
        .iter()
        .filter_map(|path| volume::mount_of(mounts, path).ok().cloned())
        .collect();
    // Where no snapshot is asked for, this unit may not mount, and has nothing to look for.
    let kinds = Kind::ALL
        .into_iter()
        .filter(|kind| config.files.volumes && relevant.iter().any(|mount| kind.expected(mount)));
    for kind in kinds {
        let volumes = volume::volumes(kind, &config.files.lvm_snapshot_size);
        for snapshot in volumes.leftovers(&relevant)? {
            volumes.remove(&snapshot).with_context(|| {
                format!("cannot remove what an earlier run left, {}", snapshot.name)
            })?;
            tracing::warn!(snapshot = snapshot.name, "removed what an earlier run left");
        }
    }
    clear_clones(&read_json::<Vec<Held>>(Path::new(paths::CLONES))?.unwrap_or_default())
}

/// Removes directories of ours beside GitLab's, and what is written down of them.
///
/// # Errors
/// With every one that cannot be removed.
pub fn clear_clones(clones: &[Held]) -> Result<()> {
    let mut failures = Vec::new();
    for held in clones {
        let there = held.open_if_there();
        match there.and_then(|there| held.remove().map(|()| there.is_some())) {
            Ok(true) => tracing::debug!(directory = %held.path.display(), "removed"),
            Ok(false) => {}
            Err(error) => failures.push(format!("{error:#}")),
        }
    }
    if !failures.is_empty() {
        bail!("{}", failures.join("; "));
    }
    own::remove(paths::CLONES)
}

fn plan(run: &RunId, choices: &[Choice]) -> Result<CapturePlan> {
    let mut plan = CapturePlan::default();
    let mut numbers: BTreeMap<(Kind, &str), usize> = BTreeMap::new();
    for Choice { path, can, .. } in choices {
        let way = match can {
            Can::Snapshot(kind, place) => {
                let number = *numbers.entry((*kind, &place.origin)).or_insert_with(|| {
                    let number = plan.snapshots.len();
                    let name = volume::name(run, number);
                    let at = Path::new(paths::VOLUMES).join(&name);
                    plan.snapshots.push(Snapshot {
                        kind: *kind,
                        origin: place.origin.clone(),
                        name,
                        at,
                    });
                    number
                });
                Way::Snapshot { number, inside: place.inside.clone() }
            }
            Can::Clone => Way::Cloned(frozen::plan_clone_directory(path, run)?),
            Can::Copy => Way::Copied,
            Can::Live => Way::Live,
        };
        plan.captures.push(Capture { path: path.clone(), way });
    }
    Ok(plan)
}

/// One for each path.
fn choose(config: &Config, mounts: &[Mount]) -> Vec<Result<Choice>> {
    let mut choices: Vec<Result<Choice>> =
        config.files.paths.iter().map(|path| choice(config, mounts, path)).collect();
    // One part is one snapshot in the repository: what has to be stored in the window takes the
    // rest with it.
    let live = choices
        .iter()
        .flatten()
        .find(|choice| matches!(choice.can, Can::Live))
        .map(|choice| choice.path.clone());
    if let Some(live) = live {
        for choice in choices.iter_mut().flatten().filter(|choice| choice.path != live) {
            (choice.can, choice.why) =
                (Can::Live, format!("stored in the window, as {} is", live.display()));
        }
    }
    choices
}

/// How one path is captured: by a snapshot of its file system, by clones of its files, by copies of
/// what changed, or in the window as a whole.
fn choice(config: &Config, mounts: &[Mount], path: &Path) -> Result<Choice> {
    let files = &config.files;
    let method = files.method(path);
    let answer = |can, why: String| Ok(Choice { path: path.to_owned(), can, why });
    if config.repository.engine == EngineName::Restic {
        let why = "stored in the window: restic reads files where they are";
        return answer(Can::Live, why.to_owned());
    }
    let why_not = match snapshot(files, mounts, path)? {
        Ok((kind, place)) => {
            return answer(
                Can::Snapshot(kind, place),
                format!("a snapshot of its {}", kind.noun()),
            );
        }
        Err(why_not) => why_not,
    };
    if !matches!(method, Method::Auto | Method::Reflink | Method::None) {
        bail!("{} cannot be captured by snapshot = \"{method}\": {why_not}", path.display());
    }
    let since = if files.presync { "what changed since the first pass" } else { "everything" };
    let because = if why_not.is_empty() { String::new() } else { format!(" ({why_not})") };
    if method != Method::None {
        match clones(path) {
            Ok(()) => {
                return answer(Can::Clone, format!("{since} is cloned in the window{because}"));
            }
            Err(error) if method == Method::Reflink => {
                return Err(anyhow!(
                    "{} cannot be captured by snapshot = \"reflink\": {error:#}",
                    path.display()
                ));
            }
            Err(_) => {}
        }
    }
    if files.presync {
        return answer(Can::Copy, format!("{since} is copied in the window{because}"));
    }
    answer(Can::Live, format!("stored in the window, without a first pass{because}"))
}

/// The snapshot that can be made of the file system of `path`, or why none can.
fn snapshot(files: &Files, mounts: &[Mount], path: &Path) -> Result<Result<(Kind, Place), String>> {
    let method = files.method(path);
    let kinds: &[Kind] = match method {
        Method::Auto => &Kind::ALL,
        Method::Btrfs => &[Kind::Btrfs],
        Method::Lvm => &[Kind::Lvm],
        Method::Zfs => &[Kind::Zfs],
        Method::Reflink | Method::None => &[],
    };
    let mount = volume::mount_of(mounts, path)?;
    let mut why_not = Vec::new();
    // No program is asked where it is not to be expected: the unit may not have the rights for it.
    for kind in kinds.iter().filter(|kind| method != Method::Auto || kind.expected(mount)) {
        if let Some(inner) = volume::mounted_below(mounts, path) {
            why_not.push(format!(
                "{} is mounted in it, which a snapshot would not have",
                inner.target.display()
            ));
            break;
        }
        match volume::volumes(*kind, &files.lvm_snapshot_size).locate(mount, path)? {
            Ok(place) => return Ok(Ok((*kind, place))),
            Err(reason) => why_not.push(format!("no snapshot of a {}: {reason}", kind.noun())),
        }
    }
    Ok(Err(why_not.join("; ")))
}

/// Fails if files on the file system of `path` cannot share their blocks. Tries it, on files that
/// have no names.
fn clones(path: &Path) -> Result<()> {
    let (above, name) = At::itself(path).open()?;
    let inside = above
        .look(Path::new(&name))?
        .is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory);
    let directory: Directory = if inside { above.below(Path::new(&name))? } else { above };
    let unnamed = || {
        rustix::fs::openat(
            &directory,
            ".",
            OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC,
            Mode::RUSR | Mode::WUSR,
        )
    };
    let (one, other) = (unnamed()?, unnamed()?);
    rustix::io::write(&one, &[0; 4096])?;
    rustix::fs::ioctl_ficlone(&other, &one)
        .with_context(|| format!("the file system of {} cannot clone", path.display()))
}
