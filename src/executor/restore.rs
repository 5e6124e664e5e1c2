//! The executor of a restore. Like that of a backup it only starts stages and waits: what must be
//! undone is undone by brackets.

use anyhow::{Result, bail};

use super::window::Window;
use super::{
    capture, conclude_with, ensure_alone, enter, environment, milestone, resume, run_id, stage,
};
use crate::config::Config;
use crate::host::own;
use crate::machine::{Base, Machine};
use crate::paths;
use crate::runs::restore::{self, Journal, Request};
use crate::runs::{Kind, Record, notes, paused};
use crate::stores;
use crate::systemd::{ServiceManager, UnitView};
use crate::units::{Plan, Restore, Unit};

/// Does one restore. An error is a failed one, and has been recorded as such.
pub async fn restore<M: ServiceManager>(
    config: &Config,
    base: Base<'_>,
    connect: impl AsyncFnOnce() -> Result<M>,
) -> Result<()> {
    let Base { clock, root, .. } = base;
    let request = Request::take(root)?;
    let started = clock.now();
    let mut record = Record::begin(request.run.clone().unwrap_or_else(|| run_id(started)), started);
    record.save(root, Kind::Restore)?;
    for stale in [paths::RESTORE_NOTES, paths::RESTORE_PLAN] {
        own::remove(root.at(stale))?;
    }
    milestone::begun(base.journal, Kind::Restore, &record);
    let manager = connect().await?;
    let result = async {
        ensure_alone(&manager, Kind::Restore).await?;
        environment(root, &record)?;
        stages(config, base, base.with(&manager), &mut record, request.run.is_none()).await
    };
    let result = result.await;
    record.warnings.extend(notes::notes(root)?);
    conclude_with(base, &mut record, Kind::Restore, result).await
}

async fn stages(
    config: &Config,
    base: Base<'_>,
    machine: Machine<'_>,
    record: &mut Record,
    undo: bool,
) -> Result<()> {
    let Machine { root, .. } = machine;
    enter(base, record, Kind::Restore, "prepare")?;
    match undo {
        false => {
            // Whoever restores anew wants nothing back.
            Journal::want_back(root, false)?;
            finish(machine).await?;
        }
        true => idle(machine).await?,
    }
    stage::one(machine, &Restore::Preflight.into()).await?;
    if undo {
        // Whatever becomes of it, it can be tried again.
        Journal::want_back(root, true)?;
    }

    enter(base, record, Kind::Restore, "restore")?;
    let plan = Plan::new(config);
    stage::proxies(machine, &plan).await?;
    // What an unfinished restore has kept down; after a reboot only its journal knows.
    let kept_down = match paused::load(root)? {
        Some(paused) => paused,
        None => Journal::load(root)?.map(|journal| journal.paused).unwrap_or_default(),
    };
    let mut driven = Vec::new();
    for store in stores::all() {
        driven.extend(store.driven_units(config, machine).await?);
    }
    let window = Window::restore(config, &plan, driven, kept_down);
    let captured = capture::capture(config, machine, &window).await?;

    enter(base, record, Kind::Restore, "resume")?;
    record.downtime = resume::answering_again(config, machine, captured, record).await?;
    if record.downtime.is_none() {
        bail!(match undo {
            false => {
                "everything is restored, but GitLab does not answer yet: when it does, what was there before is removed; until then \
                 'gitlab-backup restore --undo' puts it back"
            }
            true => "what was there before is back, but GitLab does not answer",
        });
    }
    enter(base, record, Kind::Restore, "finish")?;
    idle(machine).await?;
    stage::one(machine, &Restore::Finish.into()).await
}

/// Has the last step of an earlier restore done, if it waits for that: what has taken place is
/// finished, and never undone by the way.
pub(super) async fn finish(machine: Machine<'_>) -> Result<()> {
    idle(machine).await?;
    if restore::is_to_finish(machine.root) {
        stage::one(machine, &Restore::Finish.into()).await
    } else {
        Ok(())
    }
}

/// Waits until the last step is not at work: GitLab's late answer may have begun it.
async fn idle(machine: Machine<'_>) -> Result<()> {
    let finish = Unit::from(Restore::Finish).to_string();
    UnitView::new(machine.manager).await?.settled(&finish).await.map(drop)
}
