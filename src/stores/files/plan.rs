//! Chooses how to capture each path, by what its file system supports, before GitLab is touched.
//! The plan is written to `freeze.json`, which the later steps of the run read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use rustix::fs::{FileType, Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::config::{Config, EngineName, Files, Method};
use crate::finding::Finding;
use crate::frozen::{self, At, How};
use crate::host::beneath::{Directory, KnownDirectory};
use crate::host::own;
use crate::paths::{self, RootDirectory};
use crate::runs::record::{read_json, write_json};
use crate::values::RunId;
use crate::volume::{self, Mount, VolumeKind, VolumePlace, VolumeSnapshot};

/// How the files are captured in one run.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct CapturePlan {
    /// One for each path, in the configuration's order.
    pub captures: Vec<Capture>,
    /// The snapshots to take in the window. They are recorded before they are taken, so that they
    /// are removed even after a crash.
    pub snapshots: Vec<VolumeSnapshot>,
}

/// How one path is captured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Capture {
    /// The path, as configured.
    pub path: PathBuf,
    /// The method.
    pub way: Way,
}

/// A method to capture a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// By a snapshot of its volume.
    Snapshot {
        /// The index of the snapshot in the plan.
        number: usize,
        /// The path below the volume's root.
        inside: PathBuf,
    },
    /// By clones (reflinks), in this directory, of the files that changed since the first pass; of
    /// all files if there was none.
    Cloned(KnownDirectory),
    /// By copies of the files that changed since the first pass.
    Copied,
    /// It is stored live, in the window.
    Live,
}

impl CapturePlan {
    /// Reads the plan of the run in progress.
    pub fn current(root: &RootDirectory) -> Result<Self> {
        let record = root.at(paths::FREEZE);
        read_json(&record)?.with_context(|| {
            format!("the capture of the files is not planned: {} is missing", record.display())
        })
    }

    /// The paths that the window walks; how changed files are secured; and the directory for them,
    /// if it is not the one in the staging area.
    pub fn walked_paths(&self) -> impl Iterator<Item = (&Path, How, Option<&KnownDirectory>)> {
        self.captures.iter().filter_map(|capture| match &capture.way {
            Way::Cloned(directory) => Some((&*capture.path, How::Clone, Some(directory))),
            Way::Copied => Some((&*capture.path, How::Copy, None)),
            Way::Snapshot { .. } | Way::Live => None,
        })
    }

    /// The directories for clones, which are on GitLab's own file systems.
    pub fn clone_directories(&self) -> Vec<KnownDirectory> {
        self.captures
            .iter()
            .filter_map(|capture| {
                if let Way::Cloned(held) = &capture.way { Some(held.clone()) } else { None }
            })
            .collect()
    }

    /// Creates the directories for clones. They are recorded first, so that the next run removes
    /// them if this one crashes, and once more with their inode numbers.
    fn create_clone_directories(&mut self, root: &RootDirectory) -> Result<()> {
        let record = &root.at(paths::CLONES);
        if self.clone_directories().is_empty() {
            return Ok(());
        }
        write_json(record, &self.clone_directories())?;
        for capture in &mut self.captures {
            if let Way::Cloned(held) = &mut capture.way {
                held.make()?;
            }
        }
        write_json(record, &self.clone_directories())
    }

    /// Whether all files are stored live, in the window. One such path makes all of them so.
    pub fn is_live(&self) -> bool {
        self.captures.iter().any(|capture| capture.way == Way::Live)
    }
}

/// The method chosen for a path, with a description for the admin.
struct Choice {
    path: PathBuf,
    method: Chosen,
    why: String,
}

enum Chosen {
    Snapshot(VolumeKind, VolumePlace),
    Clone,
    Copy,
    Live,
}

/// Removes the leftovers of a crashed run, plans the capture of every path, and prepares the
/// snapshots. Runs before the window, to keep the window short.
///
/// # Errors
/// If a path cannot be captured by the configured method.
pub fn plan_capture(config: &Config, root: &RootDirectory) -> Result<()> {
    let run = super::current_run(root)?;
    let mounts = volume::mounts()?;
    remove_leftovers(config, root, &mounts)?;
    let choices = choose(config, root, &mounts).into_iter().collect::<Result<Vec<_>>>()?;
    let mut plan = plan(root, &run, &choices)?;
    plan.create_clone_directories(root)?;
    write_json(&root.at(paths::FREEZE), &plan)?;
    for choice in &choices {
        tracing::info!(path = %choice.path.display(), "{}", choice.why);
    }
    for snapshot in &plan.snapshots {
        volume::volumes(snapshot.kind, &config.files.lvm_snapshot_size, root).prepare(snapshot)?;
    }
    Ok(())
}

/// Reports how each path would be captured, for `check`. Changes nothing.
pub fn explain_capture(config: &Config, root: &RootDirectory) -> Vec<Finding> {
    if config.files.paths.is_empty() {
        return Vec::new();
    }
    match volume::mounts() {
        Ok(mounts) => choose(config, root, &mounts)
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

/// Removes the snapshots, which are found by their names, and the clones of a run that crashed.
fn remove_leftovers(config: &Config, root: &RootDirectory, mounts: &[Mount]) -> Result<()> {
    let relevant: Vec<Mount> = config
        .files
        .paths
        .iter()
        .filter_map(|path| volume::mount_of(mounts, path).ok().cloned())
        .collect();
    // Without configured snapshots, the unit has no right to mount, and there are no leftovers.
    let kinds = VolumeKind::ALL
        .into_iter()
        .filter(|kind| config.files.volumes && relevant.iter().any(|mount| kind.expected(mount)));
    for kind in kinds {
        let volumes = volume::volumes(kind, &config.files.lvm_snapshot_size, root);
        for snapshot in volumes.leftovers(&relevant)? {
            volumes.remove(&snapshot).with_context(|| {
                format!("cannot remove the snapshot {} of an earlier run", snapshot.name)
            })?;
            tracing::warn!(snapshot = snapshot.name, "removed the snapshot of an earlier run");
        }
    }
    let clones: Option<Vec<KnownDirectory>> = read_json(&root.at(paths::CLONES))?;
    remove_clones(root, &clones.unwrap_or_default())
}

/// Removes the directories for clones, and then their record.
///
/// # Errors
/// If any cannot be removed. The error names each of them, and the record stays.
pub fn remove_clones(root: &RootDirectory, clones: &[KnownDirectory]) -> Result<()> {
    let mut failures = Vec::new();
    for held in clones {
        let existing = held.open_if_there();
        match existing.and_then(|existing| held.remove().map(|()| existing.is_some())) {
            Ok(true) => tracing::debug!(directory = %held.path.display(), "removed"),
            Ok(false) => {}
            Err(error) => failures.push(format!("{error:#}")),
        }
    }
    if !failures.is_empty() {
        bail!("{}", failures.join("; "));
    }
    own::remove(root.at(paths::CLONES))
}

/// Turns the choices into a plan. Paths on the same volume share one snapshot.
fn plan(root: &RootDirectory, run: &RunId, choices: &[Choice]) -> Result<CapturePlan> {
    let mut plan = CapturePlan::default();
    let mut numbers: BTreeMap<(VolumeKind, &str), usize> = BTreeMap::new();
    for Choice { path, method, .. } in choices {
        let way = match method {
            Chosen::Snapshot(kind, place) => {
                let number = *numbers.entry((*kind, &place.origin)).or_insert_with(|| {
                    let number = plan.snapshots.len();
                    let name = volume::name(run, number);
                    let at = root.at(paths::VOLUMES).join(&name);
                    plan.snapshots.push(VolumeSnapshot {
                        kind: *kind,
                        origin: place.origin.clone(),
                        name,
                        at,
                    });
                    number
                });
                Way::Snapshot { number, inside: place.inside.clone() }
            }
            Chosen::Clone => Way::Cloned(frozen::plan_clone_directory(path, run)?),
            Chosen::Copy => Way::Copied,
            Chosen::Live => Way::Live,
        };
        plan.captures.push(Capture { path: path.clone(), way });
    }
    Ok(plan)
}

/// Chooses the method for every path, in the configuration's order.
fn choose(config: &Config, root: &RootDirectory, mounts: &[Mount]) -> Vec<Result<Choice>> {
    let mut choices: Vec<Result<Choice>> =
        config.files.paths.iter().map(|path| choose_for(config, root, mounts, path)).collect();
    // The files are one part, stored as one snapshot in the repository. So if one path must be
    // stored in the window, all of them must.
    let live = choices
        .iter()
        .flatten()
        .find(|choice| matches!(choice.method, Chosen::Live))
        .map(|choice| choice.path.clone());
    if let Some(live) = live {
        for choice in choices.iter_mut().flatten().filter(|choice| choice.path != live) {
            (choice.method, choice.why) =
                (Chosen::Live, format!("stored in the window, as {} is", live.display()));
        }
    }
    choices
}

/// Chooses the fastest method that the configuration allows and the file system of `path` supports:
/// a snapshot, clones, copies of changed files, and last a live store in the window.
fn choose_for(
    config: &Config,
    root: &RootDirectory,
    mounts: &[Mount],
    path: &Path,
) -> Result<Choice> {
    let files = &config.files;
    let method = files.method(path);
    let choose = |method, why: String| Ok(Choice { path: path.to_owned(), method, why });
    if config.repository.engine == EngineName::Restic {
        let why = "stored in the window: restic reads files where they are";
        return choose(Chosen::Live, why.to_owned());
    }
    let why_not = match find_snapshot(files, root, mounts, path)? {
        Ok((kind, place)) => {
            return choose(
                Chosen::Snapshot(kind, place),
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
        match try_clone(path) {
            Ok(()) => {
                return choose(Chosen::Clone, format!("{since} is cloned in the window{because}"));
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
        return choose(Chosen::Copy, format!("{since} is copied in the window{because}"));
    }
    choose(Chosen::Live, format!("stored in the window, without a first pass{because}"))
}

/// Finds the volume that a snapshot of `path` would be taken of, or the reasons why none can be.
fn find_snapshot(
    files: &Files,
    root: &RootDirectory,
    mounts: &[Mount],
    path: &Path,
) -> Result<Result<(VolumeKind, VolumePlace), String>> {
    let method = files.method(path);
    let kinds: &[VolumeKind] = match method {
        Method::Auto => &VolumeKind::ALL,
        Method::Btrfs => &[VolumeKind::Btrfs],
        Method::Lvm => &[VolumeKind::Lvm],
        Method::Zfs => &[VolumeKind::Zfs],
        Method::Reflink | Method::None => &[],
    };
    let mount = volume::mount_of(mounts, path)?;
    let mut why_not = Vec::new();
    // Automatic mode tries only the kinds that the mount suggests: for others the unit may not have
    // the rights to run the volume manager.
    for kind in kinds.iter().filter(|kind| method != Method::Auto || kind.expected(mount)) {
        if let Some(inner) = volume::mounted_below(mounts, path) {
            why_not.push(format!(
                "{} is mounted in it, which a snapshot would not have",
                inner.target.display()
            ));
            break;
        }
        match volume::volumes(*kind, &files.lvm_snapshot_size, root).locate(mount, path)? {
            Ok(place) => return Ok(Ok((*kind, place))),
            Err(reason) => why_not.push(format!("no snapshot of a {}: {reason}", kind.noun())),
        }
    }
    Ok(Err(why_not.join("; ")))
}

/// Clones a block between two unnamed files (`O_TMPFILE`) on the file system of `path`.
///
/// # Errors
/// If the file system does not support clones.
fn try_clone(path: &Path) -> Result<()> {
    let (above, name) = At::itself(path).open()?;
    let is_directory = above
        .look(Path::new(&name))?
        .is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory);
    let directory: Directory = if is_directory { above.below(Path::new(&name))? } else { above };
    let create_unnamed = || {
        rustix::fs::openat(
            &directory,
            ".",
            OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC,
            Mode::RUSR | Mode::WUSR,
        )
    };
    let (one, other) = (create_unnamed()?, create_unnamed()?);
    rustix::io::write(&one, &[0; 4096])?;
    rustix::fs::ioctl_ficlone(&other, &one)
        .with_context(|| format!("the file system of {} cannot clone", path.display()))
}
