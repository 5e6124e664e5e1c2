//! `ExecStopPost=` of the executor's unit: completes the record if the executor was killed.

use std::time::Duration;

use anyhow::Result;
use tokio::time::timeout;

use super::{milestone, running_other, stops};
use crate::machine::Base;
use crate::runs::{Failure, Kind, Outcome, Record};
use crate::systemd::ServiceManager;
use crate::units::{Restore, Unit};

/// Time limit of the cleanup that needs the bus.
const BRIEF: Duration = Duration::from_secs(5);

/// Closes the record of a run whose executor could not, and starts the report of a success with
/// `report`.
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
    // OnFailure= starts the report of a failure, even if this program cannot run. Starting it here
    // as well would report twice.
    if report && variable("SERVICE_RESULT").is_none_or(|result| result == "success") {
        later(Unit::Report.to_string()).await?;
    }
    // The bus may be unavailable, and the stop of the unit has a time limit.
    if let Ok(Err(error)) = timeout(BRIEF, stop_marks(kind, connect)).await {
        tracing::warn!("{error:#}");
    }
    closed
}

/// Stops the marks that a killed executor has left. An executor that was refused because of the
/// other kind has set none: these are the other's, and without them GitLab would count as stopped
/// by an admin.
async fn stop_marks<M: ServiceManager>(
    kind: Kind,
    connect: impl AsyncFnOnce() -> Result<M>,
) -> Result<()> {
    let manager = connect().await?;
    match running_other(&manager, kind).await? {
        None => stops::stop_marks(&manager).await,
        Some(_) => Ok(()),
    }
}

/// Records that the executor was killed, if it was.
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
    tracing::warn!(run = %record.id, reason, "the executor ended early");
    record.finished = Some(clock.now());
    // A run with a manifest is complete, even if the executor was killed afterwards.
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
