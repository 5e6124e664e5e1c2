//! The executor: starts the stages one after the other, and records how the run ended.
//!
//! It never starts or stops GitLab itself, and it may be killed at any time: everything that must
//! be undone is a bracket, and systemd ends brackets.

mod backup;
mod capture;
mod conclude;
mod diagnosis;
mod hold;
mod milestone;
mod restore;
mod resume;
mod stage;
mod stops;
mod watch;
mod window;

use anyhow::{Result, bail};
use jiff::Timestamp;

use crate::config::Config;
use crate::host::{durable, own, text};
use crate::machine::Base;
use crate::paths;
use crate::run::Failed;
use crate::runs::{Failure, Kind, Outcome, Record};
use crate::systemd::{ServiceManager, notify};
use crate::units::{Restore, Unit};
use crate::values::RunId;

pub use conclude::conclude;
pub use restore::restore;

/// Lines of the journal that the record of a failed run contains.
const LOG_LINES: usize = 15;

/// Executes a backup. An error means that the run failed. The failure is in its record, unless
/// `connect` failed: then [`conclude()`] records it.
pub async fn execute<M: ServiceManager>(
    config: &Config,
    base: Base<'_>,
    connect: impl AsyncFnOnce() -> Result<M>,
) -> Result<()> {
    let mut record = begin(base)?;
    milestone::begun(base.journal, Kind::Backup, &record);
    let manager = connect().await?;
    let result = async {
        claim_window(base, &manager, &record, Kind::Backup).await?;
        backup::stages(config, base, base.with(&manager), &mut record).await
    };
    let result = result.await;
    record_result(base, &mut record, Kind::Backup, result).await
}

/// Writes the result of a run, and its end, to the record and the journal.
async fn record_result(
    base: Base<'_>,
    record: &mut Record,
    kind: Kind,
    result: Result<()>,
) -> Result<()> {
    record.finished = Some(base.clock.now());
    match result {
        Ok(()) => {
            record.outcome = Outcome::Complete;
            record.save(base.root, kind)?;
            notify::status("complete");
            milestone::ended(base.journal, kind, record);
            Ok(())
        }
        Err(error) => {
            let (error, unit, log) = match error.downcast::<Failed>() {
                Ok(failed) => {
                    let since = record.started;
                    let log = base.journal.last_lines(&failed.unit, since, LOG_LINES).await;
                    let unit = failed.unit.clone();
                    (failed.with_log(&log).into(), Some(unit), log)
                }
                Err(error) => (error, None, Vec::new()),
            };
            // A run with a manifest is complete, even if a later step failed.
            if record.outcome == Outcome::Running {
                record.outcome = Outcome::Failed;
            }
            record.failure = Some(Failure { unit, reason: text::why(&error), log });
            record.save(base.root, kind)?;
            milestone::ended(base.journal, kind, record);
            Err(error)
        }
    }
}

/// Creates the record of a run.
fn begin(base: Base<'_>) -> Result<Record> {
    let Base { clock, root, .. } = base;
    own::make(root.at(paths::RUNS))?;
    let started = clock.now();
    let record = Record::begin(run_id(started), started);
    record.save(root, Kind::Backup)?;
    if let Err(error) = Record::prune(root) {
        tracing::warn!("{error:#}");
    }
    Ok(record)
}

fn run_id(started: Timestamp) -> RunId {
    RunId::new(started, u16::try_from(std::process::id() & 0xffff).unwrap_or(0))
}

/// Writes the environment that all units of the run read. Fails if the executor of the other kind
/// is running: a backup and a restore share the window, the marks in it and this environment, and
/// the second one must not touch any of them.
async fn claim_window(
    base: Base<'_>,
    manager: &dyn ServiceManager,
    record: &Record,
    kind: Kind,
) -> Result<()> {
    if let Some(message) = running_other(manager, kind).await? {
        bail!(message);
    }
    let dumps = base.root.at(paths::STAGING);
    let environment =
        format!("GITLAB_BACKUP_RUN_ID={}\nGITLAB_BACKUP_DUMPS={}\n", record.id, dumps.display());
    durable::write(&base.root.at(paths::ENVIRONMENT), 0o600, environment)
}

/// Why an executor of this kind must not run now, if that of the other kind is running.
async fn running_other(manager: &dyn ServiceManager, kind: Kind) -> Result<Option<&'static str>> {
    let (other, message) = match kind {
        Kind::Backup => (
            Unit::from(Restore::Run),
            "a restore is going on: there is nothing to back up before it is complete",
        ),
        Kind::Restore => (
            Unit::Run,
            "a backup is going on: wait for it, or 'systemctl stop gitlab-backup.target'",
        ),
    };
    let is_running = !manager.state(&other.to_string()).await?.is_settled();
    Ok(is_running.then_some(message))
}

/// Records that the run enters `stage`, and announces it.
fn enter(base: Base<'_>, record: &mut Record, kind: Kind, stage: &str) -> Result<()> {
    record.stage = stage.to_owned();
    record.save(base.root, kind)?;
    let expected = record
        .expected
        .filter(|_| stage == "capture")
        .map_or(String::new(), |expected| format!(", GitLab down for about {expected}"));
    notify::status(&format!("{}: {stage}{expected}", record.id));
    milestone::stage(base.journal, kind, record, &expected);
    Ok(())
}
