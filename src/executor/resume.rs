//! GitLab's return, as the executor waits for it.

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

/// How long the run waits for GitLab before it goes on without it; resume itself never gives up.
const RESUME_PATIENCE: Duration = Duration::from_secs(300);
/// When resume is asked for again, should the bracket's end not have done it.
const RESUME_NUDGE: Duration = Duration::from_secs(3);

/// Waits until resume has done its work; `None` if that takes so long that the run had better go
/// on.
pub(super) async fn answering_again(
    config: &Config,
    machine: Machine<'_>,
    captured: Captured,
    record: &mut Record,
) -> Result<Option<Downtime>> {
    let seconds = |from: u64, to: u64| Duration::from_micros(to.saturating_sub(from)).as_secs_f64();
    if let Err(error) = resume(machine, config).await {
        tracing::warn!("{error:#}: the backup goes on");
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

/// Waits until no unit is on the record of paused ones; asks for resume where nobody else did.
pub(super) async fn resume(machine: Machine<'_>, config: &Config) -> Result<()> {
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
                "GitLab is not up{readiness} after {RESUME_PATIENCE:?} ({status}); {unit} goes on trying"
            );
        }
        view.changed().await?;
    }
    Ok(())
}
