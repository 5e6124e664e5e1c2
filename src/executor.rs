//! The executor: starts the stages one after the other and says truthfully how the run ended.
//!
//! It never starts or stops GitLab itself and nothing depends on it living: what must be undone is
//! a bracket, and systemd closes brackets.

mod capture;
mod conclude;
mod milestone;
mod restore;
mod stage;
mod stops;

use std::path::Path;

use anyhow::{Context, Result, bail};
use jiff::Timestamp;

use crate::config::monitoring::OnError;
use crate::config::{Config, Quiesce, Stage};
use crate::gitlab::strangers;
use crate::host::{own, text};
use crate::open;
use crate::paths;
use crate::run::manifest::parts;
use crate::run::{Failed, credentials, silence};
use crate::runs::budget::budget;
use crate::runs::record::read_json;
use crate::runs::restore::{Journal, left};
use crate::runs::{Failure, Kind, Newest, Outcome, Record, paused};
use crate::stores::files::{Pass, left_out};
use crate::systemd::{Manager, last_lines, notify};
use crate::units::{Plan, Restore, Unit};
use crate::values::RunId;
use capture::Window;

pub use conclude::conclude;
pub use restore::restore;

/// Lines of the journal that a failed run keeps.
const LOG_LINES: usize = 15;

/// Does one run. An error is a failed run, and has been recorded as such.
pub async fn execute(config: &Config) -> Result<()> {
    let mut record = begin()?;
    milestone::begun(Kind::Backup, &record);
    let manager = Manager::connect().await?;
    let result = stages(config, &manager, &mut record).await;
    conclude_with(&mut record, Kind::Backup, result).await
}

/// Closes the record.
async fn conclude_with(record: &mut Record, kind: Kind, result: Result<()>) -> Result<()> {
    record.finished = Some(Timestamp::now());
    match result {
        Ok(()) => {
            record.outcome = Outcome::Complete;
            record.save(kind)?;
            notify::status("complete");
            milestone::ended(kind, record);
            Ok(())
        }
        Err(error) => {
            let (error, unit, log) = match error.downcast::<Failed>() {
                Ok(failed) => {
                    let log = last_lines(&failed.unit, record.started, LOG_LINES).await;
                    let unit = failed.unit.clone();
                    (failed.told(&log).into(), Some(unit), log)
                }
                Err(error) => (error, None, Vec::new()),
            };
            // A run whose manifest is written is complete, whatever a later step did.
            if record.outcome == Outcome::Running {
                record.outcome = Outcome::Failed;
            }
            record.failure = Some(Failure { unit, reason: text::why(&error), log });
            record.save(kind)?;
            milestone::ended(kind, record);
            Err(error)
        }
    }
}

/// Makes the run known: its record, and its id for the units.
fn begin() -> Result<Record> {
    own::make(paths::RUNS)?;
    let started = Timestamp::now();
    let record = Record::begin(run_id(started), started);
    record.save(Kind::Backup)?;
    if let Err(error) = Record::prune() {
        tracing::warn!("{error:#}");
    }
    environment(&record)?;
    Ok(record)
}

fn run_id(started: Timestamp) -> RunId {
    RunId::new(started, u16::try_from(std::process::id() & 0xffff).unwrap_or(0))
}

/// Tells the units what they belong to.
fn environment(record: &Record) -> Result<()> {
    let environment =
        format!("GITLAB_BACKUP_RUN_ID={}\nGITLAB_BACKUP_DUMPS={}\n", record.id, paths::STAGING);
    own::write(paths::ENVIRONMENT, environment)
}

async fn stages(config: &Config, manager: &Manager, record: &mut Record) -> Result<()> {
    let plan = Plan::new(config);
    if !manager.state(&Unit::from(Restore::Run).to_string()).await?.is_settled() {
        bail!("a restore is going on: there is nothing to back up before it is complete");
    }
    if let Some(why) = Journal::half_way() {
        bail!("{why}");
    }
    if paused::load()?.is_some() {
        tracing::warn!("an earlier run left GitLab paused: resuming it first");
        capture::resume(manager, config).await?;
    }
    // GitLab is back with what was restored: what lies beside it goes.
    if let Err(error) = restore::finish(manager).await {
        tracing::warn!("{error:#}");
        record.warnings.push(format!("what a restore has replaced is not removed: {error:#}"));
    }
    record.warnings.extend(left()?);
    record.warnings.extend(strangers::running(config, manager).await?);
    enter(record, Kind::Backup, "prepare")?;
    open::judge_password_file(config)?;
    credentials::files_are_there(config)?;
    if let Some(reason) = silence::forbids(config)? {
        return Err(Failed { unit: Unit::Silence.to_string(), reason, spoke: false }.into());
    }
    match stage::drive(manager, Stage::Prepare, &plan.members(Stage::Prepare), async |_| Ok(()))
        .await
    {
        // The last of them. Without its secrets it does not even start, and that is no reason for
        // no backup.
        Err(error)
            if config.monitoring.on_error == OnError::Warn && of(&error, &Unit::Silenced) =>
        {
            tracing::warn!("{error:#}: the backup goes on");
            record.warnings.push(format!("{error:#}"));
        }
        prepared => prepared?,
    }
    record.warnings.extend(silence::complaints(config)?);

    expect(config, record)?;
    enter(record, Kind::Backup, "capture")?;
    stage::proxies(manager, &plan).await?;
    let window = Window {
        target: Unit::Stage(Stage::Window),
        window: Unit::Window,
        pause: Unit::Pause,
        deadline: Some(Unit::DeadlineTarget),
        members: plan.members(Stage::Window),
        // What is frozen need not be started again.
        stopped: match config.gitlab.quiesce {
            Quiesce::Stop => config.gitlab.writers.iter().map(ToString::to_string).collect(),
            Quiesce::Freeze => Vec::new(),
        },
        alone: match config.gitlab.quiesce {
            Quiesce::Stop => config.gitlab.stopped_alone.iter().map(ToString::to_string).collect(),
            Quiesce::Freeze => Vec::new(),
        },
        driven: Vec::new(),
        paused: Vec::new(),
        frozen: match config.gitlab.quiesce {
            Quiesce::Stop => Vec::new(),
            Quiesce::Freeze => config.gitlab.writers.iter().map(ToString::to_string).collect(),
        },
        must_answer: false,
    };
    let captured = capture::capture(config, manager, &window).await?;
    enter(record, Kind::Backup, "resume")?;
    record.downtime = capture::answering_again(config, manager, captured, record).await?;
    if !config.redis.is_empty() {
        stage::settled(manager, &Unit::Redis, captured.since).await?;
    }
    if plan.freezes() {
        stage::settled(manager, &Unit::FilesLive, captured.since).await?;
        stage::up(manager, &Unit::FsSnapshot).await?;
    }

    enter(record, Kind::Backup, "store")?;
    let loaded = plan.members(Stage::Window);
    stage::drive(manager, Stage::Store, &plan.members(Stage::Store), async |state| {
        // A held snapshot keeps vacuum from cleaning up, and a file system from freeing space: it
        // ends with its step, not with the stage.
        for (_, bracket) in stage::HELD
            .into_iter()
            .filter(|(step, bracket)| state.name == step.to_string() && loaded.contains(bracket))
        {
            manager.stop(&bracket.to_string()).await?;
        }
        Ok(())
    })
    .await?;
    record.outcome = Outcome::Complete;
    record.parts = parts()?;
    record.warnings.extend(left_out()?);
    if let Err(error) =
        (Newest { run: record.id.clone(), location: Some(config.repository.location.clone()) })
            .save()
    {
        record.warnings.push(format!("the next run will not know what it came after: {error:#}"));
    }
    let finish = plan.members(Stage::Finish);
    if !finish.is_empty() {
        enter(record, Kind::Backup, "finish")?;
        stage::drive(manager, Stage::Finish, &finish, async |_| Ok(())).await?;
    }
    if record.downtime.is_none() {
        capture::resume(manager, config)
            .await
            .context("the backup is complete, but GitLab is not back")?;
    }
    Ok(())
}

/// Tells how long GitLab will probably be away, before it is touched.
fn expect(config: &Config, record: &mut Record) -> Result<()> {
    let records: Vec<Record> =
        Record::all()?.into_iter().filter(|other| other.id != record.id).collect();
    let last = records.iter().find(|other| other.outcome == Outcome::Complete);
    let since = last.map(|last| record.started.duration_since(last.started).as_secs_f64());
    let pass = match config.files.presync {
        true => read_json::<Pass>(Path::new(paths::PASS))?.unwrap_or_default(),
        false => Pass::default(),
    };
    let Some(budget) = budget(&records, pass.ahead(since)) else {
        tracing::info!("how long GitLab will be away is told from the second run on");
        return Ok(());
    };
    record.expected = Some(budget.expected);
    tracing::info!(runs = budget.runs, entries = pass.entries, "{budget}");
    if budget.expected.total() > config.gitlab.max_downtime.duration().as_secs_f64() {
        let warning = format!(
            "{budget}, which is longer than [gitlab] max-downtime allows: the run may be ended by it"
        );
        tracing::warn!("{warning}");
        record.warnings.push(warning);
    }
    Ok(())
}

/// Whether it is `unit` that failed.
fn of(error: &anyhow::Error, unit: &Unit) -> bool {
    error.downcast_ref::<Failed>().is_some_and(|failed| failed.unit == unit.to_string())
}

fn enter(record: &mut Record, kind: Kind, stage: &str) -> Result<()> {
    record.stage = stage.to_owned();
    record.save(kind)?;
    let expected = record
        .expected
        .filter(|_| stage == "capture")
        .map_or(String::new(), |expected| format!(", GitLab away for about {expected}"));
    notify::status(&format!("{}: {stage}{expected}", record.id));
    milestone::stage(kind, record, &expected);
    Ok(())
}
