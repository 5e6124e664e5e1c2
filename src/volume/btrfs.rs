//! btrfs: snapshots of subvolumes, in a directory at the top level of the file system, which GitLab
//! does not use.
//!
//! The top level may belong to GitLab's account, which can then move this directory and replace it.
//! Therefore the directory is held by descriptor, and snapshots are removed and mounted by the
//! subvolume's number, not by a path.

use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use rustix::fs::FileType;

use crate::host::beneath::Directory;
use crate::host::{own, process};

use super::unmount::unmount;
use super::{Mount, VolumeKind, VolumePlace, VolumeSnapshot, Volumes, has_our_name};

/// The inode number of every subvolume's root (linux/btrfs_tree.h, BTRFS_FIRST_FREE_OBJECTID).
const ROOT_INODE: u64 = 256;
/// The directory with the snapshots, in the top level.
const DIRECTORY: &str = ".gitlab-backup";

/// Separates device and path in an origin: no path contains it.
const SEPARATOR: char = '\0';

pub(super) struct Btrfs {
    /// The directory with the mount points of the top levels.
    pub mounts: PathBuf,
}

/// A subvolume: its file system's device, and its path in the top level.
struct Subvolume<'a> {
    device: &'a str,
    path: &'a Path,
}

/// A subvolume in the notation of [`VolumeSnapshot::origin`].
fn origin(device: &str, path: &Path) -> String {
    format!("{device}{SEPARATOR}{}", path.display())
}

impl<'a> Subvolume<'a> {
    fn parse(origin: &'a str) -> Result<Self> {
        // Older versions used a colon, although device and path can contain one.
        let parts = origin.split_once(SEPARATOR).or_else(|| origin.split_once(':'));
        let (device, path) = parts.with_context(|| format!("'{origin}' names no subvolume"))?;
        Ok(Self { device, path: Path::new(path) })
    }
}

impl Btrfs {
    /// The mount point for the top level of the file system on `device`.
    fn mount_point(&self, device: &str) -> PathBuf {
        self.mounts.join(device.trim_start_matches('/').replace('/', "-"))
    }

    /// Mounts the top level of the file system on `device`, unless it is mounted, and returns
    /// where.
    fn mounted_top(&self, device: &str) -> Result<PathBuf> {
        let top = self.mount_point(device);
        if top.metadata().is_ok_and(|metadata| metadata.ino() == ROOT_INODE) {
            return Ok(top);
        }
        own::make_closed(&top)?;
        process::run(
            Command::new("mount")
                .args(["-t", "btrfs", "-o", "subvolid=5,noatime"])
                .arg(device)
                .arg(&top),
        )?;
        Ok(top)
    }
}

impl Volumes for Btrfs {
    fn locate(&self, mount: &Mount, path: &Path) -> Result<Result<VolumePlace, String>> {
        if mount.kind != "btrfs" {
            return Ok(Err(format!("it is on {}", mount.kind)));
        }
        let below = path.strip_prefix(&mount.target).context("the path is not below its mount")?;
        let whole = mount.root.strip_prefix("/").unwrap_or(&mount.root).join(below);
        // Counts the steps up to the nearest directory that is a subvolume's root; usually that is
        // the mount point.
        let roots = path.ancestors().take_while(|path| path.starts_with(&mount.target));
        let depth = roots
            .take_while(|path| path.metadata().is_ok_and(|metadata| metadata.ino() != ROOT_INODE))
            .count();
        let Some(subvolume) =
            whole.ancestors().nth(depth).filter(|_| depth <= below.components().count())
        else {
            return Ok(Err("it is mounted without the root of its subvolume".to_owned()));
        };
        if let Some(nested) = nested(path, &whole)? {
            return Ok(Err(format!(
                "there is another subvolume in it, {nested}, which a snapshot would not have"
            )));
        }
        let inside = whole.strip_prefix(subvolume).unwrap_or(&whole).to_owned();
        Ok(Ok(VolumePlace { origin: origin(&mount.source, subvolume), inside }))
    }

    fn prepare(&self, snapshot: &VolumeSnapshot) -> Result<()> {
        let top = Directory::open(&self.mounted_top(Subvolume::parse(&snapshot.origin)?.device)?)?;
        if snapshot_directory(&top)?.is_some() {
            return Ok(());
        }
        top.make(OsStr::new(DIRECTORY), 0o700).map(drop).with_context(|| {
            format!(
                "snapshots are created in {DIRECTORY} at the top of the file system, but what is \
                 there is no directory that root alone can change: remove it"
            )
        })
    }

    fn take(&self, snapshot: &VolumeSnapshot) -> Result<()> {
        let subvolume = Subvolume::parse(&snapshot.origin)?;
        let top = Directory::open(&self.mount_point(subvolume.device))?;
        let directory = snapshot_directory(&top)?
            .with_context(|| format!("{DIRECTORY} is gone from the file system's top level"))?;
        let mut command = Command::new("btrfs");
        // Directories on the way may belong to others: the subvolume is opened once, and passed by
        // its descriptor.
        let source = top.below(subvolume.path)?;
        command
            .args(["-q", "subvolume", "snapshot", "-r"])
            .arg(source.reachable())
            .arg(directory.reachable().join(&snapshot.name));
        process::run(&mut command).map(drop)
    }

    fn mount(&self, snapshot: &VolumeSnapshot) -> Result<()> {
        let device = Subvolume::parse(&snapshot.origin)?.device;
        let number =
            subvolume_number(&Directory::open(&self.mount_point(device))?, &snapshot.name)?;
        let number = number.with_context(|| {
            format!("snapshot {} is gone from {DIRECTORY} in {device}'s top level", snapshot.name)
        })?;
        own::make(&snapshot.at)?;
        let options = format!("ro,noatime,subvolid={number}");
        process::run(
            Command::new("mount")
                .args(["-t", "btrfs", "-o", &options])
                .arg(device)
                .arg(&snapshot.at),
        )
        .map(drop)
    }

    fn ensure_intact(&self, _: &VolumeSnapshot) -> Result<()> {
        Ok(())
    }

    fn remove(&self, snapshot: &VolumeSnapshot) -> Result<()> {
        if snapshot.at.is_absolute() {
            unmount(&snapshot.at)?;
        }
        let device = Subvolume::parse(&snapshot.origin)?.device;
        let path = self.mounted_top(device)?;
        let top = Directory::open(&path)?;
        match subvolume_number(&top, &snapshot.name)? {
            Some(number) => {
                let mut delete = Command::new("btrfs");
                delete
                    .args(["-q", "subvolume", "delete", "--subvolid", &number.to_string()])
                    .arg(&path);
                process::run(&mut delete)?;
            }
            None => ensure_absent(&path, &snapshot.name)?,
        }
        // With the last snapshot, the directory is removed if it is empty, and the top level is
        // unmounted.
        if let Some(directory) = snapshot_directory(&top)? {
            if !snapshot_names(&directory)?.is_empty() {
                return Ok(());
            }
            if directory.entries()?.is_empty() {
                top.remove_empty(OsStr::new(DIRECTORY))?;
            }
        }
        drop(top);
        unmount(&path)
    }

    fn leftovers(&self, mounts: &[Mount]) -> Result<Vec<VolumeSnapshot>> {
        let mut devices: Vec<&str> = mounts
            .iter()
            .filter(|mount| mount.kind == "btrfs")
            .map(|mount| mount.source.as_str())
            .collect();
        devices.sort_unstable();
        devices.dedup();
        let mut found = Vec::new();
        for device in devices {
            // Mounts the top level, unless it is mounted already.
            let path = self.mounted_top(device)?;
            let names = match snapshot_directory(&Directory::open(&path)?)? {
                Some(directory) => snapshot_names(&directory)?,
                None => Vec::new(),
            };
            if names.is_empty() {
                unmount(&path)?;
            }
            let snapshot = |name| VolumeSnapshot {
                kind: VolumeKind::Btrfs,
                origin: origin(device, Path::new("")),
                name,
                at: PathBuf::new(),
            };
            found.extend(names.into_iter().map(snapshot));
        }
        Ok(found)
    }
}

/// The directory with the snapshots; `None` if it does not exist or others can change it.
fn snapshot_directory(top: &Directory) -> Result<Option<Directory>> {
    let name = Path::new(DIRECTORY);
    let is_directory = top
        .look(name)?
        .is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory);
    if !is_directory {
        return Ok(None);
    }
    let found = top.below(name)?;
    let stat = found.stat()?;
    Ok((stat.st_uid == 0 && stat.st_mode & 0o022 == 0).then_some(found))
}

/// The names of the snapshots in the directory.
fn snapshot_names(directory: &Directory) -> Result<Vec<String>> {
    let entries = directory.entries()?.into_iter().filter(|(_, kind)| *kind == FileType::Directory);
    Ok(entries
        .filter_map(|(name, _)| name.into_string().ok().filter(|name| has_our_name(name)))
        .collect())
}

/// The subvolume number of the snapshot with this name, if it exists.
fn subvolume_number(top: &Directory, name: &str) -> Result<Option<u64>> {
    let Some(directory) = snapshot_directory(top)? else { return Ok(None) };
    if directory.look(Path::new(name))?.is_none() {
        return Ok(None);
    }
    let found = directory.below(Path::new(name))?;
    if found.stat()?.st_ino != ROOT_INODE {
        bail!("{name} in {DIRECTORY} of the file system's top level is not a subvolume: remove it");
    }
    let output = process::run(
        Command::new("btrfs").args(["inspect-internal", "rootid"]).arg(found.reachable()),
    )?;
    output
        .trim()
        .parse()
        .map(Some)
        .with_context(|| format!("'btrfs inspect-internal rootid' says '{}'", output.trim()))
}

/// Fails if a missing snapshot is in another place of the file system: the owner of the top level
/// has moved it.
fn ensure_absent(top: &Path, name: &str) -> Result<()> {
    let listed = process::run(Command::new("btrfs").args(["subvolume", "list"]).arg(top))?;
    let moved = listed
        .lines()
        .filter_map(|line| line.split_once(" path "))
        .find(|(_, path)| Path::new(path).ends_with(name));
    match moved {
        Some((_, path)) => {
            bail!(
                "snapshot {name} was moved to {path} in the file system's top level: 'btrfs \
                 subvolume delete' removes it there"
            )
        }
        None => Ok(()),
    }
}

/// The first subvolume below `path`, whose path in the top level is `whole`.
fn nested(path: &Path, whole: &Path) -> Result<Option<String>> {
    // A line is "ID 257 gen 9 top level 5 path home/git". Without `-o`, paths inside the subvolume
    // of `path` would be relative to it.
    let listed = process::run(Command::new("btrfs").args(["subvolume", "list", "-o"]).arg(path))?;
    let below = |line: &str| {
        let (_, found) = line.split_once(" path ")?;
        (Path::new(found).starts_with(whole) && Path::new(found) != whole).then(|| found.to_owned())
    };
    Ok(listed.lines().find_map(below))
}
