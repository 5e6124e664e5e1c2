//! The record of paused units. It is in /run: after a reboot, systemd starts the units anyway.

use anyhow::Result;

use crate::host::{durable, own};
use crate::paths::{self, RootDirectory};
use crate::systemd::Paused;

use super::record::{read_json, write_json};

/// The paused units; none if there is no record.
pub fn load(root: &RootDirectory) -> Result<Option<Vec<Paused>>> {
    read_json(&root.at(paths::PAUSED))
}

/// Replaces the record.
pub fn save(root: &RootDirectory, units: &[Paused]) -> Result<()> {
    write_json(&root.at(paths::PAUSED), &units)
}

/// Removes the record.
pub fn clear(root: &RootDirectory) -> Result<()> {
    own::remove(root.at(paths::UNANSWERED))?;
    own::remove(root.at(paths::PAUSED))
}

/// Records whether GitLab answered before it was stopped, and the units that ran then. If it did
/// not answer, resume does not wait for its answer.
pub fn record_answer(root: &RootDirectory, answered: bool, units: &[String]) -> Result<()> {
    write_json(&root.at(paths::ASKED), &units)?;
    let unanswered = root.at(paths::UNANSWERED);
    if answered { own::remove(unanswered) } else { durable::write(&unanswered, 0o600, "") }
}

/// Whether resume waits for GitLab's answer.
pub fn must_answer(root: &RootDirectory) -> bool {
    !root.at(paths::UNANSWERED).exists()
}

/// The units that ran when GitLab answered and are not in `units`: an admin has stopped them since,
/// and the answer may depend on them.
pub fn missing(root: &RootDirectory, units: &[Paused]) -> Vec<String> {
    let asked: Vec<String> = read_json(&root.at(paths::ASKED)).ok().flatten().unwrap_or_default();
    asked.into_iter().filter(|asked| !units.iter().any(|paused| paused.unit == *asked)).collect()
}

/// Removes a unit that an admin has stopped, and prevents that the start of another unit pulls it
/// in.
pub fn leave_down(units: &mut Vec<Paused>, unit: &str) {
    units.retain(|paused| paused.unit != unit);
    for paused in units {
        paused.left_down.push(unit.to_owned());
    }
}
