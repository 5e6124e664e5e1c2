//! Starts that came to nothing before the executor could write a record: a broken configuration, a
//! program that cannot be run, a staging area that cannot be made. Only systemd knows of them.

use anyhow::Result;
use jiff::Timestamp;

use crate::run::Failed;
use crate::runs::{Kind, Record};
use crate::systemd::{ActiveState, Manager, ServiceManager, last_lines};
use crate::units::{Restore, Unit};

/// Lines of the journal in which the last words are looked for.
const LOG_LINES: usize = 15;

/// A start without a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unstarted {
    /// The unit that failed.
    pub unit: String,
    /// When it was started.
    pub at: Timestamp,
    /// Why it failed, in its own words where it had any.
    pub reason: String,
}

/// The last start, if it came to nothing and was after that of `last`. Forgotten with a reboot, as
/// systemd forgets.
///
/// # Errors
/// If systemd does not answer.
pub async fn unstarted(
    manager: &Manager,
    kind: Kind,
    last: Option<&Record>,
) -> Result<Option<Unstarted>> {
    // What the executor requires fails first.
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
        // One that has a record tells more of itself.
        if last.is_some_and(|last| last.started >= at) {
            continue;
        }
        let failed = Failed::of(&state, 0);
        let failed = failed.told(&last_lines(&state.name, at, LOG_LINES).await);
        return Ok(Some(Unstarted { unit: state.name, at, reason: failed.reason }));
    }
    Ok(None)
}
