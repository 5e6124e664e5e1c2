//! Where a start came from, as far as systemd tells.

use std::collections::{BTreeSet, VecDeque};
use std::os::linux::fs::MetadataExt;
use std::path::Path;

use procfs::Current;
use rustix::fs::{major, minor};

use super::ServiceManager;
use super::closure::STARTED_WITH;
use crate::host::own;

/// A host has some hundred units, and a unit is asked for by few.
const MOST: usize = 200;
/// Held by a switch of NixOS while it starts and stops units.
const SWITCH: &str = "/run/nixos/switch-to-configuration.lock";

/// What asked for the start of `unit`, to stand after "was started": ` with gitlab.target`, ` by
/// gitlab.timer`; empty where systemd does not tell.
///
/// `queued` are the jobs that were seen since, number and unit: what is asked for has the lowest
/// number of those that are queued with it.
pub async fn origin(manager: &dyn ServiceManager, unit: &str, queued: &[(u32, String)]) -> String {
    let mut told = String::new();
    let own =
        queued.iter().rev().find(|(_, queued)| queued == unit).map_or(u32::MAX, |(id, _)| *id);
    let asked = asked_for(manager, unit, |name| {
        queued.iter().any(|(id, queued)| queued == name && *id < own)
    })
    .await;
    if let Some(asked) = &asked {
        told = format!(" with {asked}");
    }
    if let Ok(state) = manager.state(asked.as_deref().unwrap_or(unit)).await
        && let Some(trigger) = state.trigger
    {
        told = format!("{told} by {trigger}");
    }
    if is_locked(Path::new(SWITCH)) {
        format!("{told} while a switch of NixOS went on")
    } else {
        told
    }
}

/// The nearest unit above `unit` that was queued.
async fn asked_for(
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

/// Whether somebody holds `file`, flock(2). It is not tried: a switch that begins in that moment
/// would fail.
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
    fn a_file_that_is_held_is_seen_to_be() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(!is_locked(file.path()));
        rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).unwrap();
        assert!(is_locked(file.path()));
    }
}
