//! The record of paused units. In /run: after a reboot there is nothing to resume.

use std::path::Path;

use anyhow::Result;

use crate::host::own;
use crate::paths;
use crate::systemd::Paused;

use super::record::{read_json, write_json};

/// What is to be started again; none if nothing is paused.
pub fn load() -> Result<Option<Vec<Paused>>> {
    read_json(Path::new(paths::PAUSED))
}

/// Replaces the record.
pub fn save(units: &[Paused]) -> Result<()> {
    write_json(Path::new(paths::PAUSED), &units)
}

/// Everything runs again.
pub fn clear() -> Result<()> {
    own::remove(paths::UNANSWERED)?;
    own::remove(paths::PAUSED)
}

/// Leaves word whether GitLab answered before it was stopped, when `units` ran: one that did not
/// need not answer to be as it was.
pub fn answered(answered: bool, units: &[String]) -> Result<()> {
    write_json(Path::new(paths::ASKED), &units)?;
    if answered { own::remove(paths::UNANSWERED) } else { own::write(paths::UNANSWERED, "") }
}

/// Whether its answer is part of its return.
pub fn is_to_answer() -> bool {
    !Path::new(paths::UNANSWERED).exists()
}

/// What ran when GitLab was asked, and is not on this record: somebody has stopped it since, and
/// the answer may need it.
pub fn missing(units: &[Paused]) -> Vec<String> {
    let asked: Vec<String> = read_json(Path::new(paths::ASKED)).ok().flatten().unwrap_or_default();
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
