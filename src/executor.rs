//! The executor: starts the stages one after the other and says truthfully how the run ended.
//!
//! It never starts or stops GitLab itself and nothing depends on it living: what must be undone is
//! a bracket, and systemd closes brackets.

mod backup;
mod capture;
mod conclude;
mod diagnosis;
mod milestone;
mod restore;
mod resume;
mod stage;
mod stops;
mod watch;
mod window;

use anyhow::Result;
use jiff::Timestamp;

use crate::config::Config;
use crate::host::{own, text};
use crate::machine::Base;
use crate::paths::{self, RootDirectory};
use crate::run::Failed;
use crate::runs::{Failure, Kind, Outcome, Record};
use crate::systemd::{ServiceManager, notify};
use crate::values::RunId;

pub use conclude::conclude;
pub use restore::restore;

/// Lines of the journal that a failed run keeps.
const LOG_LINES: usize = 15;

/// Does one run. An error is a failed run, and has been recorded as such, also where `connect`
/// finds no service manager.
pub async fn execute<M: ServiceManager>(
    config: &Config,
    base: Base<'_>,
    connect: impl AsyncFnOnce() -> Result<M>,
) -> Result<()> {
    let mut record = begin(base)?;
    milestone::begun(base.journal, Kind::Backup, &record);
    let manager = connect().await?;
    let result = backup::stages(config, base, base.with(&manager), &mut record).await;
    conclude_with(base, &mut record, Kind::Backup, result).await
}

/// Closes the record.
async fn conclude_with(
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
            // A run whose manifest is written is complete, whatever a later step did.
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

/// Makes the run known: its record, and its id for the units.
fn begin(base: Base<'_>) -> Result<Record> {
    let Base { clock, root, .. } = base;
    own::make(root.at(paths::RUNS))?;
    let started = clock.now();
    let record = Record::begin(run_id(started), started);
    record.save(root, Kind::Backup)?;
    if let Err(error) = Record::prune(root) {
        tracing::warn!("{error:#}");
    }
    environment(root, &record)?;
    Ok(record)
}

fn run_id(started: Timestamp) -> RunId {
    RunId::new(started, u16::try_from(std::process::id() & 0xffff).unwrap_or(0))
}

/// Tells the units what they belong to.
fn environment(root: &RootDirectory, record: &Record) -> Result<()> {
    let environment =
        format!("GITLAB_BACKUP_RUN_ID={}\nGITLAB_BACKUP_DUMPS={}\n", record.id, paths::STAGING);
    own::write(root.at(paths::ENVIRONMENT), environment)
}

fn enter(base: Base<'_>, record: &mut Record, kind: Kind, stage: &str) -> Result<()> {
    record.stage = stage.to_owned();
    record.save(base.root, kind)?;
    let expected = record
        .expected
        .filter(|_| stage == "capture")
        .map_or(String::new(), |expected| format!(", GitLab away for about {expected}"));
    notify::status(&format!("{}: {stage}{expected}", record.id));
    milestone::stage(base.journal, kind, record, &expected);
    Ok(())
}
