//! Volumes: the storage below file systems that can make snapshots. One file for each kind.
//!
//! The name of a snapshot is `gitlab-backup-`, the ID of its run and a number. A snapshot is
//! recorded before it is created, so that it can be removed after any crash. After a reboot,
//! snapshots are found by their names. Nothing with another name is ever removed.

mod btrfs;
mod lvm;
mod unmount;
mod zfs;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::host::mounts;
use crate::paths::{self, RootDirectory};
use crate::values::RunId;

pub use crate::host::mounts::{Mount, seen as mounts};

/// The prefix of every snapshot's name, before the run's ID.
const PREFIX: &str = "gitlab-backup-";

/// A kind of volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VolumeKind {
    /// A btrfs subvolume.
    Btrfs,
    /// A logical volume, thin or classic.
    Lvm,
    /// A ZFS dataset.
    Zfs,
}

impl VolumeKind {
    /// Every kind. The first that can snapshot a path is used.
    pub const ALL: [Self; 3] = [Self::Btrfs, Self::Zfs, Self::Lvm];

    /// What a volume of this kind is called in messages.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Btrfs => "btrfs subvolume",
            Self::Lvm => "logical volume",
            Self::Zfs => "ZFS dataset",
        }
    }

    /// Whether an admin would expect a snapshot of this kind for `mount`.
    pub fn expected(self, mount: &Mount) -> bool {
        match self {
            Self::Btrfs => mount.kind == "btrfs",
            Self::Lvm => mount.is_mapped(),
            Self::Zfs => mount.kind == "zfs",
        }
    }
}

/// A snapshot, which may not exist yet or no longer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeSnapshot {
    /// The kind of its volume.
    pub kind: VolumeKind,
    /// The volume, in the notation of its kind.
    pub origin: String,
    /// Its name, unique on the host.
    pub name: String,
    /// Where it is mounted to be read.
    pub at: PathBuf,
}

/// Where a path is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumePlace {
    /// The volume, in the notation of its kind.
    pub origin: String,
    /// The path below the volume's own root.
    pub inside: PathBuf,
}

/// The operations on a kind of volume.
pub trait Volumes {
    /// The volume of `path`, which is below `mount`, or the reason why no snapshot of this kind is
    /// possible. Fails if that cannot be determined. Changes nothing.
    fn locate(&self, mount: &Mount, path: &Path) -> Result<Result<VolumePlace, String>>;
    /// Prepares a snapshot before the window.
    fn prepare(&self, snapshot: &VolumeSnapshot) -> Result<()>;
    /// Creates it, as fast as possible, because GitLab is down.
    fn take(&self, snapshot: &VolumeSnapshot) -> Result<()>;
    /// Mounts it at its [`at`](VolumeSnapshot::at), after GitLab is up again.
    fn mount(&self, snapshot: &VolumeSnapshot) -> Result<()>;
    /// Fails if it has lost data since it was created.
    fn ensure_intact(&self, snapshot: &VolumeSnapshot) -> Result<()>;
    /// Unmounts and removes it, as far as it exists.
    fn remove(&self, snapshot: &VolumeSnapshot) -> Result<()>;
    /// The snapshots of earlier runs on the volumes below these mounts. Their
    /// [`at`](VolumeSnapshot::at) is empty.
    fn leftovers(&self, mounts: &[Mount]) -> Result<Vec<VolumeSnapshot>>;
}

/// The operations on volumes of this kind. `lvm_size` is the size of a classic LVM snapshot, in the
/// notation of lvcreate(8). The mount points are below `root`.
pub fn volumes(kind: VolumeKind, lvm_size: &str, root: &RootDirectory) -> Box<dyn Volumes> {
    match kind {
        VolumeKind::Btrfs => Box::new(btrfs::Btrfs { mounts: root.at(paths::VOLUMES) }),
        VolumeKind::Lvm => Box::new(lvm::Lvm { size: lvm_size.to_owned() }),
        VolumeKind::Zfs => Box::new(zfs::Zfs::default()),
    }
}

/// The likely reason if a snapshot cannot be read, if the kind has one.
pub fn unreadable(snapshot: &VolumeSnapshot) -> Option<String> {
    match snapshot.kind {
        VolumeKind::Lvm => lvm::unreadable(snapshot),
        VolumeKind::Btrfs | VolumeKind::Zfs => None,
    }
}

/// The name of snapshot `number` of `run`.
pub fn name(run: &RunId, number: usize) -> String {
    format!("{PREFIX}{run}-{number}")
}

/// Whether a name is one that [`name`] returns.
fn has_our_name(name: &str) -> bool {
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

/// The first mount below `path`, if there is one: a snapshot of the file system around it would not
/// contain it.
pub fn mounted_below<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    mounts.iter().find(|mount| mount.target != path && mount.target.starts_with(path))
}
