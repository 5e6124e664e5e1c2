//! What is left to say when the executor is gone, however it went: `ExecStopPost=` of its unit.

use std::time::Duration;

use anyhow::Result;
use tokio::time::timeout;

use super::{ensure_alone, milestone, stops};
use crate::machine::Base;
use crate::runs::{Failure, Kind, Outcome, Record};
use crate::systemd::ServiceManager;
use crate::units::{Restore, Unit};

/// What the units that are left may take to be asked for.
const BRIEF: Duration = Duration::from_secs(5);

/// Closes the record of a run whose executor could not do it, and has it reported if asked to.
///
/// `variable` reads the environment: systemd.exec(5) `$SERVICE_RESULT`, `$EXIT_CODE`,
/// `$EXIT_STATUS`. `later` queues the start of a unit.
pub async fn conclude<M: ServiceManager>(
    kind: Kind,
    base: Base<'_>,
    variable: impl Fn(&str) -> Option<String>,
    report: bool,
    later: impl AsyncFnOnce(String) -> Result<()>,
    connect: impl AsyncFnOnce() -> Result<M>,
) -> Result<()> {
    let closed = close(kind, base, &variable);
    // A failure is reported by OnFailure=, also where this helper cannot run; one trigger each, or
    // systemd would report twice.
    if report && variable("SERVICE_RESULT").is_none_or(|result| result == "success") {
        later(Unit::Report.to_string()).await?;
    }
    // The bus may be gone, and the unit's stop has a limit.
    if let Ok(Err(error)) = timeout(BRIEF, unwatch(kind, connect)).await {
        tracing::warn!("{error:#}");
    }
    closed
}

/// Removes the marks of an executor that was killed. One that was refused because of the other has
/// none: these are the other's, and without them GitLab would count as stopped by an admin.
async fn unwatch<M: ServiceManager>(
    kind: Kind,
    connect: impl AsyncFnOnce() -> Result<M>,
) -> Result<()> {
    let manager = connect().await?;
    match ensure_alone(&manager, kind).await {
        Ok(()) => stops::end(&manager).await,
        Err(_) => Ok(()),
    }
}

fn close(kind: Kind, base: Base<'_>, variable: impl Fn(&str) -> Option<String>) -> Result<()> {
    let Base { clock, journal, root } = base;
    let Some(mut record) = Record::last(root, kind)? else { return Ok(()) };
    if record.finished.is_some() {
        return Ok(());
    }
    let value = |name| variable(name).unwrap_or_default();
    let reason = match (
        value("SERVICE_RESULT").as_str(),
        value("EXIT_CODE").as_str(),
        value("EXIT_STATUS").as_str(),
    ) {
        (_, "killed", "TERM") => format!("stopped by request in stage {}", record.stage),
        (_, "killed" | "dumped", signal) => {
            format!("the executor was killed by SIG{signal} in stage {}", record.stage)
        }
        (result, _, status) => {
            format!("the executor ended in stage {}: {result}, exit status {status}", record.stage)
        }
    };
    tracing::warn!(run = %record.id, reason, "run ended before it was done");
    record.finished = Some(clock.now());
    // A run whose manifest is written is complete, whatever ended its executor.
    if record.outcome == Outcome::Running {
        record.outcome = Outcome::Failed;
    }
    let unit = match kind {
        Kind::Backup => Unit::Run,
        Kind::Restore => Restore::Run.into(),
    };
    record.failure = Some(Failure { unit: Some(unit.to_string()), reason, log: Vec::new() });
    record.save(root, kind)?;
    milestone::ended(journal, kind, &record);
    Ok(())
}
