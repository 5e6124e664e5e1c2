//! Finds starts that failed before the executor wrote a record: an invalid configuration, a program
//! that cannot be executed, a staging area that cannot be created. Only systemd knows about them.

use anyhow::Result;
use jiff::Timestamp;

use crate::run::Failed;
use crate::runs::{Kind, Record};
use crate::systemd::{ActiveState, Journal, ServiceManager};
use crate::units::{Restore, Unit};

/// How many lines of the journal are searched for the last error.
const LOG_LINES: usize = 15;

/// A failed start without a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unstarted {
    /// The unit that failed.
    pub unit: String,
    /// The time of the start.
    pub at: Timestamp,
    /// Why it failed: the error that it logged, if any, or systemd's result.
    pub reason: String,
}

/// Finds the last start, if it failed without a record and was later than that of `last`. systemd
/// forgets it with a reboot.
///
/// # Errors
/// If systemd does not answer.
pub async fn unstarted(
    manager: &dyn ServiceManager,
    journal: &dyn Journal,
    kind: Kind,
    last: Option<&Record>,
) -> Result<Option<Unstarted>> {
    // The executor's unit requires the staging area, which therefore fails first.
    let units = match kind {
        Kind::Backup => [Unit::Staging, Unit::Run],
        Kind::Restore => [Restore::Staging.into(), Restore::Run.into()],
    };
    for unit in units {
        let state = manager.state(&unit.to_string()).await?;
        let Some(at) =
            state.begun.filter(|_| state.active == ActiveState::Failed && state.is_settled())
        else {
            continue;
        };
        // A later start that has a record is reported by that record.
        if last.is_some_and(|last| last.started >= at) {
            continue;
        }
        let failed = Failed::of(&state, 0);
        let failed = failed.with_log(&journal.last_lines(&state.name, at, LOG_LINES).await);
        return Ok(Some(Unstarted { unit: state.name, at, reason: failed.reason }));
    }
    Ok(None)
}
