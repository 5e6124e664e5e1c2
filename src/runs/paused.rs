//! The record of paused units. In /run: after a reboot there is nothing to resume.

use anyhow::Result;

use crate::host::{durable, own};
use crate::paths::{self, RootDirectory};
use crate::systemd::Paused;

use super::record::{read_json, write_json};

/// What is to be started again; none if nothing is paused.
pub fn load(root: &RootDirectory) -> Result<Option<Vec<Paused>>> {
    read_json(&root.at(paths::PAUSED))
}

/// Replaces the record.
pub fn save(root: &RootDirectory, units: &[Paused]) -> Result<()> {
    write_json(&root.at(paths::PAUSED), &units)
}

/// Everything runs again.
pub fn clear(root: &RootDirectory) -> Result<()> {
    own::remove(root.at(paths::UNANSWERED))?;
    own::remove(root.at(paths::PAUSED))
}

/// Leaves word whether GitLab answered before it was stopped, when `units` ran: one that did not
/// need not answer to be as it was.
pub fn answered(root: &RootDirectory, answered: bool, units: &[String]) -> Result<()> {
    write_json(&root.at(paths::ASKED), &units)?;
    let unanswered = root.at(paths::UNANSWERED);
    if answered { own::remove(unanswered) } else { durable::write(&unanswered, 0o600, "") }
}

/// Whether its answer is part of its return.
pub fn is_to_answer(root: &RootDirectory) -> bool {
    !root.at(paths::UNANSWERED).exists()
}

/// What ran when GitLab was asked, and is not on this record: somebody has stopped it since, and
/// the answer may need it.
pub fn missing(root: &RootDirectory, units: &[Paused]) -> Vec<String> {
    let asked: Vec<String> = read_json(&root.at(paths::ASKED)).ok().flatten().unwrap_or_default();
    asked.into_iter().filter(|asked| !units.iter().any(|paused| paused.unit == *asked)).collect()
}

/// Takes a unit off the list that an admin has stopped: no other unit's start may bring it back
/// either.
pub fn leave_down(units: &mut Vec<Paused>, unit: &str) {
    units.retain(|paused| paused.unit != unit);
    for paused in units {
        paused.left_down.push(unit.to_owned());
    }
}
