//! The executor of a restore. Like that of a backup it only starts stages and waits; brackets undo
//! what must be undone.

use anyhow::{Result, bail};

use super::window::Window;
use super::{capture, claim_window, enter, milestone, record_result, resume, run_id, stage};
use crate::config::Config;
use crate::host::own;
use crate::machine::{Base, Machine};
use crate::paths;
use crate::runs::restore::{self, Request, RestoreJournal};
use crate::runs::{Kind, Record, notes, paused};
use crate::stores;
use crate::systemd::{ServiceManager, UnitView};
use crate::units::{Plan, Restore, Unit};

/// Executes the requested restore. An error means that the restore failed, which is in its record
/// unless `connect` failed.
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
    for stale in [root.at(paths::RESTORE_NOTES), root.at(paths::RESTORE_PLAN)] {
        own::remove(stale)?;
    }
    milestone::begun(base.journal, Kind::Restore, &record);
    let manager = connect().await?;
    let result = async {
        claim_window(base, &manager, &record, Kind::Restore).await?;
        stages(config, base, base.with(&manager), &mut record, &request).await
    };
    let result = result.await;
    record.warnings.extend(notes::notes(root)?);
    record_result(base, &mut record, Kind::Restore, result).await
}

async fn stages(
    config: &Config,
    base: Base<'_>,
    machine: Machine<'_>,
    record: &mut Record,
    request: &Request,
) -> Result<()> {
    let Machine { root, .. } = machine;
    let undo = request.run.is_none();
    enter(base, record, Kind::Restore, "prepare")?;
    match undo {
        false => {
            // A new restore cancels the undo of an earlier one.
            RestoreJournal::request_undo(root, false)?;
            finish_earlier(machine).await?;
        }
        true => wait_for_finish(machine).await?,
    }
    stage::run_unit(machine, &Restore::Preflight.into()).await?;
    if undo {
        // Recorded, so that the undo can be repeated if it fails.
        RestoreJournal::request_undo(root, true)?;
    }

    let plan = Plan::new(config);
    // A restore that was interrupted half way keeps GitLab down, and is put back in the window.
    let stop_first = undo || request.stop_first || RestoreJournal::half_way(root).is_some();
    if !stop_first {
        enter(base, record, Kind::Restore, "load")?;
        let loads: Vec<Unit> = plan.loads().into_iter().map(Unit::Restore).collect();
        stage::run_stage(machine, &Restore::Load.into(), &loads, &[]).await?;
    }

    enter(base, record, Kind::Restore, "restore")?;
    stage::adopt_proxies(machine, &plan).await?;
    // The units that an unfinished restore keeps down. After a reboot only its journal has them.
    let kept_down = match paused::load(root)? {
        Some(paused) => paused,
        None => RestoreJournal::load(root)?.map(|journal| journal.paused).unwrap_or_default(),
    };
    let mut driven = Vec::new();
    for store in stores::all() {
        driven.extend(store.driven_units(config, machine).await?);
    }
    let window = Window::restore(config, &plan, driven, kept_down, stop_first);
    // Its warnings are about a capture: a restore replaces what a killed unit was writing.
    let captured = capture::capture(config, machine, &window).await?;

    enter(base, record, Kind::Restore, "resume")?;
    record.downtime = resume::wait_and_measure(config, machine, &captured, record).await?;
    if record.downtime.is_none() {
        bail!(match undo {
            false => {
                "everything is restored, but GitLab does not answer yet: when it does, the old \
                 data is removed; until then 'gitlab-backup restore --undo' puts it back"
            }
            true => "the old data is back, but GitLab does not answer",
        });
    }
    enter(base, record, Kind::Restore, "finish")?;
    wait_for_finish(machine).await?;
    stage::run_unit(machine, &Restore::Finish.into()).await
}

/// Runs the last step of an earlier restore, if it is still due. A restore that has replaced the
/// data is never undone without a request.
pub(super) async fn finish_earlier(machine: Machine<'_>) -> Result<()> {
    wait_for_finish(machine).await?;
    if restore::is_to_finish(machine.root) {
        stage::run_unit(machine, &Restore::Finish.into()).await
    } else {
        Ok(())
    }
}

/// Waits until the last step is not running: resume may have started it when GitLab answered late.
async fn wait_for_finish(machine: Machine<'_>) -> Result<()> {
    let finish = Unit::from(Restore::Finish).to_string();
    UnitView::new(machine.manager).await?.wait_until_settled(&finish).await.map(drop)
}
