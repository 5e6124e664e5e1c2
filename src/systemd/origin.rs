//! Finds out what has started a unit.

use std::collections::{BTreeSet, VecDeque};
use std::os::linux::fs::MetadataExt;
use std::path::Path;

use procfs::Current;
use rustix::fs::{major, minor};

use super::ServiceManager;
use super::closure::STARTED_WITH;
use crate::host::own;
use crate::paths::RootDirectory;

/// The most units that the search visits. A host has some hundred, and few pull in one unit.
const MOST: usize = 200;
/// The lock of NixOS' switch-to-configuration while it starts and stops units.
const SWITCH: &str = "/run/nixos/switch-to-configuration.lock";

/// What has started `unit`, to be appended to "was started": ` with gitlab.target`, ` by
/// gitlab.timer`; empty if unknown.
///
/// `queued` are the ids and units of the recent jobs. The job that was requested has a lower id
/// than those that it pulled in.
pub async fn origin(
    manager: &dyn ServiceManager,
    root: &RootDirectory,
    unit: &str,
    queued: &[(u32, String)],
) -> String {
    let mut text = String::new();
    let own =
        queued.iter().rev().find(|(_, queued)| queued == unit).map_or(u32::MAX, |(id, _)| *id);
    let requested = requested_unit(manager, unit, |name| {
        queued.iter().any(|(id, queued)| queued == name && *id < own)
    })
    .await;
    if let Some(requested) = &requested {
        text = format!(" with {requested}");
    }
    if let Ok(state) = manager.state(requested.as_deref().unwrap_or(unit)).await
        && let Some(trigger) = state.trigger
    {
        text = format!("{text} by {trigger}");
    }
    if is_locked(&root.at(SWITCH)) {
        format!("{text} while a switch of NixOS went on")
    } else {
        text
    }
}

/// The nearest unit that pulls in `unit` and was queued.
async fn requested_unit(
    manager: &dyn ServiceManager,
    unit: &str,
    was_queued: impl Fn(&str) -> bool,
) -> Option<String> {
    let mut seen = BTreeSet::from([unit.to_owned()]);
    let mut queue = VecDeque::from([unit.to_owned()]);
    while let Some(next) = queue.pop_front() {
        let state = manager.state(&next).await.ok()?;
        for name in STARTED_WITH.iter().flat_map(|list| state.list(list)) {
            if was_queued(name) {
                return Some(name.clone());
            }
            if seen.len() < MOST && seen.insert(name.clone()) {
                queue.push_back(name.clone());
            }
        }
    }
    None
}

/// Whether a process holds the lock of `file`, flock(2). Does not try to lock it: a switch that
/// begins at that moment would fail. The kernel lists the locks of every file in /proc/locks, by
/// the inode, so this works below any root directory.
fn is_locked(file: &Path) -> bool {
    let Ok(file) = own::metadata(file) else { return false };
    let at = (major(file.st_dev()), minor(file.st_dev()), file.st_ino());
    procfs::Locks::current()
        .is_ok_and(|locks| locks.0.iter().any(|lock| (lock.devmaj, lock.devmin, lock.inode) == at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_locked_file_is_recognised() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(!is_locked(file.path()));
        rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).unwrap();
        assert!(is_locked(file.path()));
    }
}
