//! Waits until resume has brought GitLab back.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::Instant;

use super::capture::Captured;
use crate::config::Config;
use crate::machine::Machine;
use crate::paths;
use crate::runs::{Downtime, Record};
use crate::systemd::{Mode, UnitView};
use crate::units::Unit;

/// How long the run waits for GitLab before it continues; resume itself never gives up.
const RESUME_PATIENCE: Duration = Duration::from_secs(300);
/// After which time resume is started again, if the end of the bracket did not.
const RESUME_NUDGE: Duration = Duration::from_secs(3);

/// Waits until GitLab is back, and returns the downtime. If it takes too long, records a warning
/// and returns none, so that the run continues.
pub(super) async fn wait_and_measure(
    config: &Config,
    machine: Machine<'_>,
    captured: &Captured,
    record: &mut Record,
) -> Result<Option<Downtime>> {
    let seconds = |from: u64, to: u64| Duration::from_micros(to.saturating_sub(from)).as_secs_f64();
    if let Err(error) = wait(machine, config).await {
        tracing::warn!("{error:#}: the backup continues");
        record.warnings.push(format!("{error:#}"));
        record.downtime_longer_than = Some(seconds(captured.since, machine.clock.monotonic()));
        return Ok(None);
    }
    if let Some(opening) = captured.frozen {
        let (stop, capture) =
            (seconds(opening, captured.opened), seconds(captured.opened, captured.closed));
        return Ok(Some(Downtime { stop, capture, start: 0.0 }));
    }
    Ok(Some(Downtime {
        stop: seconds(captured.since, captured.opened),
        capture: seconds(captured.opened, captured.closed),
        start: seconds(captured.closed, machine.clock.monotonic()),
    }))
}

/// Waits until there is no record of paused units. Starts resume if it is not running.
pub(super) async fn wait(machine: Machine<'_>, config: &Config) -> Result<()> {
    let started = Instant::now();
    let paused = machine.root.at(paths::PAUSED);
    let unit = Unit::Resume.to_string();
    let mut nudge = started + if paused.exists() { Duration::ZERO } else { RESUME_NUDGE };
    let mut view = UnitView::new(machine.manager).await?;
    while paused.exists() {
        let state = view.state(&unit).await?;
        if Instant::now() >= nudge && state.is_settled() {
            view.start(&unit, Mode::Replace).await?;
            nudge = Instant::now() + RESUME_NUDGE;
        }
        if started.elapsed() > RESUME_PATIENCE {
            let readiness = if config.gitlab.readiness.is_some() { " and answers" } else { "" };
            let status = machine.manager.state(&unit).await?.status_text;
            bail!(
                "GitLab is not up{readiness} after {RESUME_PATIENCE:?} ({status}); {unit} goes on \
                 trying"
            );
        }
        view.wait_for_change().await?;
    }
    Ok(())
}
