//! The executor of a restore. Like that of a backup it only starts stages and waits: what must be
//! undone is undone by brackets.

use anyhow::{Result, bail};
use jiff::Timestamp;
use tokio::time::sleep;

use crate::config::Config;
use crate::host::own;
use crate::paths;
use crate::restore as steps;
use crate::runs::restore::{self, Journal, Request};
use crate::runs::{Kind, Record, paused};
use crate::systemd::Manager;
use crate::units::{Plan, Restore, Unit};

use super::capture::{self, Window};
use super::{conclude_with, enter, environment, milestone, run_id, stage};

/// Does one restore. An error is a failed one, and has been recorded as such.
pub async fn restore(config: &Config) -> Result<()> {
    let request = Request::take()?;
    let started = Timestamp::now();
    let mut record = Record::begin(request.run.clone().unwrap_or_else(|| run_id(started)), started);
    record.save(Kind::Restore)?;
    for stale in [paths::RESTORE_NOTES, paths::RESTORE_PLAN] {
        own::remove(stale)?;
    }
    environment(&record)?;
    milestone::begun(Kind::Restore, &record);
    let manager = Manager::connect().await?;
    let result = stages(config, &manager, &mut record, request.run.is_none()).await;
    record.warnings.extend(steps::notes()?);
    conclude_with(&mut record, Kind::Restore, result).await
}

async fn stages(config: &Config, manager: &Manager, record: &mut Record, undo: bool) -> Result<()> {
    if !manager.state(&Unit::Run.to_string()).await?.is_settled() {
        bail!("a backup is going on: wait for it, or 'systemctl stop gitlab-backup.target'");
    }
    enter(record, Kind::Restore, "prepare")?;
    match undo {
        false => {
            // Whoever restores anew wants nothing back.
            Journal::want_back(false)?;
            finish(manager).await?;
        }
        true => idle(manager).await?,
    }
    stage::one(manager, &Restore::Preflight.into()).await?;
    if undo {
        // Whatever becomes of it, it can be tried again.
        Journal::want_back(true)?;
    }

    enter(record, Kind::Restore, "restore")?;
    let plan = Plan::new(config);
    stage::proxies(manager, &plan).await?;
    let window = Window {
        target: Restore::Apply.into(),
        window: Restore::Window.into(),
        pause: Restore::Pause.into(),
        deadline: None,
        members: plan.restore().into_iter().map(Unit::Restore).collect(),
        stopped: config.gitlab.writers.iter().map(ToString::to_string).collect(),
        alone: config.gitlab.stopped_alone.iter().map(ToString::to_string).collect(),
        driven: steps::redis_units(config, manager).await?,
        // What an unfinished restore has kept down; after a reboot only its journal knows.
        paused: match paused::load()? {
            Some(paused) => paused,
            None => Journal::load()?.map(|journal| journal.paused).unwrap_or_default(),
        },
        frozen: Vec::new(),
        // What was restored is only kept if it does.
        must_answer: true,
    };
    let captured = capture::capture(config, manager, &window).await?;

    enter(record, Kind::Restore, "resume")?;
    record.downtime = capture::answering_again(config, manager, captured, record).await?;
    if record.downtime.is_none() {
        bail!(match undo {
            false => {
                "everything is restored, but GitLab does not answer yet: when it does, what was there before is removed; until then \
                 'gitlab-backup restore --undo' puts it back"
            }
            true => "what was there before is back, but GitLab does not answer",
        });
    }
    enter(record, Kind::Restore, "finish")?;
    idle(manager).await?;
    stage::one(manager, &Restore::Finish.into()).await
}

/// Has the last step of an earlier restore done, if it waits for that: what has taken place is
/// finished, and never undone by the way.
pub(super) async fn finish(manager: &Manager) -> Result<()> {
    idle(manager).await?;
    if restore::is_to_finish() {
        stage::one(manager, &Restore::Finish.into()).await
    } else {
        Ok(())
    }
}

/// Waits until the last step is not at work: GitLab's late answer may have begun it.
async fn idle(manager: &Manager) -> Result<()> {
    while !manager.state(&Unit::from(Restore::Finish).to_string()).await?.is_settled() {
        sleep(stage::PAUSE).await;
    }
    Ok(())
}
