//! Volumes: what paths live on, where that can make snapshots of itself. One file for each kind.
//!
//! A snapshot's name is ours and tells its run. It is written down before it is made, so that it
//! can be undone whatever dies; what a reboot left is found by its name, and nothing else is ever
//! removed.

mod btrfs;
mod lvm;
mod unmount;
mod zfs;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::host::mounts;
use crate::values::RunId;

pub use crate::host::mounts::{Mount, seen as mounts};

/// Before the run's id, in every snapshot's name.
const PREFIX: &str = "gitlab-backup-";

/// A kind of volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A btrfs subvolume.
    Btrfs,
    /// A logical volume, thin or classic.
    Lvm,
    /// A ZFS dataset.
    Zfs,
}

impl Kind {
    /// Every kind; the first that can is taken.
    pub const ALL: [Self; 3] = [Self::Btrfs, Self::Zfs, Self::Lvm];

    /// What one of its volumes is called.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Btrfs => "btrfs subvolume",
            Self::Lvm => "logical volume",
            Self::Zfs => "ZFS dataset",
        }
    }

    /// Whether somebody who sees `mount` would expect a snapshot of this kind.
    pub fn expected(self, mount: &Mount) -> bool {
        match self {
            Self::Btrfs => mount.kind == "btrfs",
            Self::Lvm => mount.is_mapped(),
            Self::Zfs => mount.kind == "zfs",
        }
    }
}

/// A snapshot, perhaps not made yet, perhaps gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// What it is a snapshot of.
    pub kind: Kind,
    /// The volume, as its kind calls it.
    pub origin: String,
    /// Its name, unique on the host.
    pub name: String,
    /// Where it can be read once it is mounted.
    pub at: PathBuf,
}

/// Where a path is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The volume, as its kind calls it.
    pub origin: String,
    /// The path below the volume's own root.
    pub inside: PathBuf,
}

/// What each kind of volume can do.
pub trait Volumes {
    /// Where `path` is, below `mount`; with what is there instead, or why it cannot be snapshotted,
    /// in words, if it is on no volume of this kind. Fails if it cannot be found out. Changes
    /// nothing.
    fn place(&self, mount: &Mount, path: &Path) -> Result<Result<Place, String>>;
    /// All that can be done for a snapshot before the window.
    fn prepare(&self, snapshot: &Snapshot) -> Result<()>;
    /// Makes it: in the window, so as fast as can be.
    fn take(&self, snapshot: &Snapshot) -> Result<()>;
    /// Makes it readable at its [`at`](Snapshot::at); GitLab is up again.
    fn mount(&self, snapshot: &Snapshot) -> Result<()>;
    /// Fails if it has lost what it was to keep.
    fn intact(&self, snapshot: &Snapshot) -> Result<()>;
    /// Removes it, however far it got; that it is gone already is no failure.
    fn undo(&self, snapshot: &Snapshot) -> Result<()>;
    /// Snapshots with names of ours, on the volumes below these mounts; their [`at`](Snapshot::at)
    /// is of no use.
    fn leftovers(&self, mounts: &[Mount]) -> Result<Vec<Snapshot>>;
}

/// What can be done with volumes of this kind. `lvm_size` is what a classic snapshot may hold, as
/// lvcreate(8) takes it.
pub fn volumes(kind: Kind, lvm_size: &str) -> Box<dyn Volumes> {
    match kind {
        Kind::Btrfs => Box::new(btrfs::Btrfs),
        Kind::Lvm => Box::new(lvm::Lvm { size: lvm_size.to_owned() }),
        Kind::Zfs => Box::new(zfs::Zfs::default()),
    }
}

/// Why reading a snapshot would fail, if there is a likely reason for it.
pub fn unreadable(snapshot: &Snapshot) -> Option<String> {
    match snapshot.kind {
        Kind::Lvm => lvm::unreadable(snapshot),
        Kind::Btrfs | Kind::Zfs => None,
    }
}

/// The name of the snapshot number `number` of `run`.
pub fn name(run: &RunId, number: usize) -> String {
    format!("{PREFIX}{run}-{number}")
}

/// Whether a name is one that we give.
fn is_ours(name: &str) -> bool {
    let parse = |name: &str| {
        let (run, number) = name.strip_prefix(PREFIX)?.rsplit_once('-')?;
        Some(run.parse::<RunId>().is_ok() && number.parse::<usize>().is_ok())
    };
    parse(name).unwrap_or(false)
}

/// The mount that `path` is below.
pub fn mount_of<'a>(mounts: &'a [Mount], path: &Path) -> Result<&'a Mount> {
    mounts::of(mounts, path)
        .with_context(|| format!("no file system is mounted at {}", path.display()))
}

/// What is mounted below `path`, if anything: a snapshot of the file system around it would not
/// have it.
pub fn mounted_below<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    mounts.iter().find(|mount| mount.target != path && mount.target.starts_with(path))
}
