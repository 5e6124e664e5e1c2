//! The executor: starts the stages one after the other and says truthfully how the run ended.
//!
//! It never starts or stops GitLab itself and nothing depends on it living: what must be undone is a bracket, and systemd closes brackets.

mod capture;
mod conclude;
mod stage;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use jiff::Timestamp;

use crate::config::{Config, Stage};
use crate::paths;
use crate::runs::{Failure, Outcome, Record};
use crate::systemd::{Manager, last_lines, notify};
use crate::units::{Plan, Unit};
use crate::values::RunId;

pub use conclude::conclude;
pub use stage::Failed;

/// Lines of the journal that a failed run keeps.
const LOG_LINES: usize = 15;

/// Does one run. An error is a failed run, and has been recorded as such.
pub async fn execute(config: &Config) -> Result<()> {
    let mut record = begin()?;
    tracing::info!(run = %record.id, "run started");
    let manager = Manager::connect().await?;
    let result = stages(config, &manager, &mut record).await;
    record.finished = Some(Timestamp::now());
    match result {
        Ok(()) => {
            record.outcome = Outcome::Complete;
            record.save()?;
            notify::status("complete");
            let downtime = record.downtime.map(|downtime| downtime.total());
            tracing::info!(run = %record.id, downtime, "run complete");
            Ok(())
        }
        Err(error) => {
            let unit = error.downcast_ref::<Failed>().map(|failed| failed.unit.clone());
            let log = match error.downcast_ref::<Failed>() {
                Some(failed) => last_lines(&failed.unit, record.started, LOG_LINES).await,
                None => Vec::new(),
            };
            // A run whose manifest is written is complete, whatever a later step did.
            if record.outcome == Outcome::Running {
                record.outcome = Outcome::Failed;
            }
            record.failure = Some(Failure { unit, reason: format!("{error:#}"), log });
            record.save()?;
            Err(error)
        }
    }
}

/// Makes the run known: its record, and its id for the units.
fn begin() -> Result<Record> {
    fs::create_dir_all(paths::RUNS).with_context(|| format!("cannot make {}", paths::RUNS))?;
    let started = Timestamp::now();
    let salt = u16::try_from(std::process::id() & 0xffff).unwrap_or(0);
    let record = Record {
        id: RunId::new(started, salt),
        started,
        finished: None,
        outcome: Outcome::Running,
        stage: "prepare".to_owned(),
        downtime: None,
        failure: None,
        warnings: Vec::new(),
    };
    record.save()?;
    let environment = format!("GITLAB_BACKUP_RUN_ID={}\nGITLAB_BACKUP_DUMPS={}\n", record.id, paths::STAGING);
    fs::write(paths::ENVIRONMENT, environment).with_context(|| format!("cannot write {}", paths::ENVIRONMENT))?;
    Ok(record)
}

async fn stages(config: &Config, manager: &Manager, record: &mut Record) -> Result<()> {
    let plan = Plan::new(config);
    if Path::new(paths::PAUSED).exists() {
        tracing::warn!("an earlier run left GitLab paused: resuming it first");
        capture::resume(manager, config).await?;
    }
    enter(record, "prepare")?;
    stage::drive(manager, Stage::Prepare, &plan.members(Stage::Prepare), async |_| Ok(())).await?;

    enter(record, "capture")?;
    let captured = capture::capture(config, manager, &plan.members(Stage::Window)).await?;
    enter(record, "resume")?;
    record.downtime = capture::answering_again(config, manager, captured, record).await?;
    if !config.redis.is_empty() {
        stage::settled(manager, &Unit::Redis, captured.since).await?;
    }

    enter(record, "store")?;
    let mut released = false;
    stage::drive(manager, Stage::Store, &plan.members(Stage::Store), async |state| {
        // A held snapshot keeps vacuum from cleaning up: it ends with the dump, not with the stage.
        if !released && state.name == Unit::Postgresql.to_string() {
            released = true;
            manager.stop(&Unit::PgSnapshot.to_string()).await?;
        }
        Ok(())
    })
    .await?;
    record.outcome = Outcome::Complete;
    let finish = plan.members(Stage::Finish);
    if !finish.is_empty() {
        enter(record, "finish")?;
        stage::drive(manager, Stage::Finish, &finish, async |_| Ok(())).await?;
    }
    if record.downtime.is_none() {
        capture::resume(manager, config).await.context("the backup is complete, but GitLab is not back")?;
    }
    Ok(())
}

fn enter(record: &mut Record, stage: &str) -> Result<()> {
    record.stage = stage.to_owned();
    record.save()?;
    notify::status(&format!("{}: {stage}", record.id));
    tracing::info!(run = %record.id, stage, "stage");
    Ok(())
}
