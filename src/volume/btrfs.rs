//! btrfs: snapshots of subvolumes, made in the file system's own top level, where no GitLab looks.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::host::beneath::Directory;
use crate::host::own;
use crate::paths;
use crate::process;

use super::unmount::unmount;
use super::{Kind, Mount, Place, Snapshot, Volumes, is_ours};

/// The number that a subvolume's root has in it (linux/btrfs_tree.h, BTRFS_FIRST_FREE_OBJECTID).
const ROOT_INODE: u64 = 256;
/// Where our snapshots are, in the top level.
const DIRECTORY: &str = ".gitlab-backup";

pub(super) struct Btrfs;

/// A subvolume: its file system's device, and its path in the top level.
struct Subvolume<'a> {
    device: &'a str,
    path: &'a Path,
}

impl<'a> Subvolume<'a> {
    fn parse(origin: &'a str) -> Result<Self> {
        let (device, path) = origin.split_once(':').with_context(|| format!("'{origin}' names no subvolume"))?;
        Ok(Self { device, path: Path::new(path) })
    }
}

impl Volumes for Btrfs {
    fn place(&self, mount: &Mount, path: &Path) -> Result<Result<Place, String>> {
        if mount.kind != "btrfs" {
            return Ok(Err(format!("it is on {}", mount.kind)));
        }
        let below = path.strip_prefix(&mount.target).context("the path is not below its mount")?;
        let whole = mount.root.strip_prefix("/").unwrap_or(&mount.root).join(below);
        // The nearest directory above that is a subvolume's root; usually what is mounted is one.
        let roots = path.ancestors().take_while(|path| path.starts_with(&mount.target));
        let depth = roots.take_while(|path| path.metadata().is_ok_and(|metadata| metadata.ino() != ROOT_INODE)).count();
        let Some(subvolume) = whole.ancestors().nth(depth).filter(|_| depth <= below.components().count()) else {
            return Ok(Err("it is mounted without the root of its subvolume".to_owned()));
        };
        if let Some(nested) = nested(path, &whole)? {
            return Ok(Err(format!("there is another subvolume in it, {nested}, which a snapshot would not have")));
        }
        let inside = whole.strip_prefix(subvolume).unwrap_or(&whole).to_owned();
        Ok(Ok(Place { origin: format!("{}:{}", mount.source, subvolume.display()), inside }))
    }

    fn prepare(&self, snapshot: &Snapshot) -> Result<()> {
        let directory = top(Subvolume::parse(&snapshot.origin)?.device)?.join(DIRECTORY);
        own::make_closed(&directory)
    }

    fn take(&self, snapshot: &Snapshot) -> Result<()> {
        let subvolume = Subvolume::parse(&snapshot.origin)?;
        let top = mounted(subvolume.device);
        let target = top.join(DIRECTORY).join(&snapshot.name);
        let mut command = Command::new("btrfs");
        // What is on the way to it may be others': it is opened as it is, and not looked for again.
        let source = Directory::open(&top)?.below(subvolume.path)?;
        command.args(["-q", "subvolume", "snapshot", "-r"]).arg(source.reachable()).arg(target);
        process::run(&mut command).map(drop)
    }

    fn mount(&self, snapshot: &Snapshot) -> Result<()> {
        let source = mounted(Subvolume::parse(&snapshot.origin)?.device).join(DIRECTORY).join(&snapshot.name);
        own::make(&snapshot.at)?;
        process::run(Command::new("mount").args(["--bind", "-o", "ro"]).arg(source).arg(&snapshot.at)).map(drop)
    }

    fn intact(&self, _: &Snapshot) -> Result<()> {
        Ok(())
    }

    fn undo(&self, snapshot: &Snapshot) -> Result<()> {
        if snapshot.at.is_absolute() {
            unmount(&snapshot.at)?;
        }
        let top = top(Subvolume::parse(&snapshot.origin)?.device)?;
        let path = top.join(DIRECTORY).join(&snapshot.name);
        if path.exists() {
            process::run(Command::new("btrfs").args(["-q", "subvolume", "delete"]).arg(&path))?;
        }
        // With the last one goes all that was there for them.
        let directory = top.join(DIRECTORY);
        if !ours(&directory)?.is_empty() {
            return Ok(());
        }
        // What others have in it stays.
        if own::entries(&directory).is_ok_and(|mut entries| entries.next().is_none()) {
            own::remove_directory(&directory)?;
        }
        unmount(&top)
    }

    fn leftovers(&self, mounts: &[Mount]) -> Result<Vec<Snapshot>> {
        let mut devices: Vec<&str> = mounts.iter().filter(|mount| mount.kind == "btrfs").map(|mount| mount.source.as_str()).collect();
        devices.sort_unstable();
        devices.dedup();
        let mut found = Vec::new();
        for device in devices {
            // Looked at where it is mounted only for this.
            let top = top(device)?;
            let names = ours(&top.join(DIRECTORY))?;
            if names.is_empty() {
                unmount(&top)?;
            }
            let snapshot = |name| Snapshot { kind: Kind::Btrfs, origin: format!("{device}:"), name, at: PathBuf::new() };
            found.extend(names.into_iter().map(snapshot));
        }
        Ok(found)
    }
}

/// The names of our snapshots in this directory.
fn ours(directory: &Path) -> Result<Vec<String>> {
    let entries = match own::entries(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("cannot read {}", directory.display()))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        names.extend(is_ours(&name).then_some(name));
    }
    Ok(names)
}

/// Where the top level of the file system on `device` is, once it is mounted.
fn mounted(device: &str) -> PathBuf {
    Path::new(paths::VOLUMES).join(device.trim_start_matches('/').replace('/', "-"))
}

/// The same, mounted.
fn top(device: &str) -> Result<PathBuf> {
    let top = mounted(device);
    if top.metadata().is_ok_and(|metadata| metadata.ino() == ROOT_INODE) {
        return Ok(top);
    }
    own::make_closed(&top)?;
    process::run(Command::new("mount").args(["-t", "btrfs", "-o", "subvolid=5,noatime"]).arg(device).arg(&top))?;
    Ok(top)
}

/// The first subvolume below `path`, which is `whole` in the top level.
fn nested(path: &Path, whole: &Path) -> Result<Option<String>> {
    // ID 257 gen 9 top level 5 path home/git: without `-o`, what is in the subvolume of `path` would be told relative to that.
    let listed = process::run(Command::new("btrfs").args(["subvolume", "list", "-o"]).arg(path))?;
    let below = |line: &str| {
        let (_, found) = line.split_once(" path ")?;
        (Path::new(found).starts_with(whole) && Path::new(found) != whole).then(|| found.to_owned())
    };
    Ok(listed.lines().find_map(below))
}
