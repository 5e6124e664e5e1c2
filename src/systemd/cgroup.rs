//! Control groups of units, cgroups(7): what is frozen in them, and which processes they have.
//!
//! A group is named as systemd names it (`ControlGroup`), below the root of the hierarchy.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::host::own;
use crate::paths::{self, RootDirectory};

/// statfs(2): the unified control group hierarchy.
const CGROUP2: i64 = 0x6367_7270;

/// Fails if units cannot be frozen on this host, as `quiesce` needs it: that takes the unified
/// hierarchy.
pub fn ensure_freezes(root: &RootDirectory, quiesce: &str) -> Result<()> {
    let found =
        rustix::fs::statfs(root.at(paths::CGROUP)).context("cannot look at /sys/fs/cgroup")?;
    if found.f_type != CGROUP2 {
        bail!(
            "quiesce = \"{quiesce}\" needs the unified control group hierarchy (cgroup v2), and \
             this host has version 1: use \"stop\""
        );
    }
    Ok(())
}

/// Freezes a group, and those below it. Does not wait.
pub fn freeze(root: &RootDirectory, group: &str) -> Result<()> {
    own::write_to_kernel(file(root, group), "1")
}

/// Thaws a group. Does nothing if it is gone, and its freeze with it.
pub fn thaw(root: &RootDirectory, group: &str) -> Result<()> {
    let file = file(root, group);
    match own::write_to_kernel(&file, "0") {
        Err(_) if !file.exists() => Ok(()),
        written => written,
    }
}

/// Whether every process of a group is frozen.
pub fn is_frozen(root: &RootDirectory, group: &str) -> bool {
    own::read_text(directory(root, group).join("cgroup.events"))
        .is_ok_and(|events| events.lines().any(|line| line == "frozen 1"))
}

/// The processes of a group and of those below it.
pub fn processes(root: &RootDirectory, group: &str) -> Vec<i32> {
    let mut found = Vec::new();
    let mut directories = vec![directory(root, group)];
    while let Some(directory) = directories.pop() {
        let pids = own::read_text(directory.join("cgroup.procs")).unwrap_or_default();
        found.extend(pids.lines().filter_map(|pid| pid.parse::<i32>().ok()));
        let below = own::entries(&directory).into_iter().flatten().flatten();
        let below = below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        directories.extend(below.map(|entry| entry.path()));
    }
    found
}

fn file(root: &RootDirectory, group: &str) -> PathBuf {
    directory(root, group).join("cgroup.freeze")
}

fn directory(root: &RootDirectory, group: &str) -> PathBuf {
    root.at(paths::CGROUP).join(group.trim_start_matches('/'))
}
