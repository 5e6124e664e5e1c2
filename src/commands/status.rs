//! `status`: what is wrong, what goes on now and what came last.

mod told;
mod wrong;

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;
use serde::Serialize;

use crate::exit::{Exit, UNIT_FAILED};
use crate::host::{own, remedy, text};
use crate::paths::RootDirectory;
use crate::run::unstarted;
use crate::runs::restore::{self, Journal};
use crate::runs::{Kind, Outcome, Record, Verified, paused};
use crate::systemd::{Manager, ServiceManager, UnitState};
use crate::units::{Restore, Unit};

use wrong::{Clock, Facts};

/// Where systemd keeps the stamps of timers, systemd.timer(5) `Persistent=`.
const STAMPS: &str = "/var/lib/systemd/timers";
/// Between the making of a stamp and its first date.
const AT_ONCE: Duration = Duration::from_secs(1);

/// The JSON of `status`: fields are added, never renamed.
#[derive(Serialize)]
struct Status {
    /// What somebody has to see to; the exit code is 3 unless there is nothing.
    wrong: Vec<String>,
    running: bool,
    /// The run that goes on, or the last.
    last: Option<Record>,
    last_complete: Option<Record>,
    /// The last restore.
    restore: Option<Record>,
    /// Why GitLab must not run, if a restore ended half way.
    half_restored: Option<String>,
    /// What is left beside what is live, and what becomes of it.
    left: Vec<String>,
    /// Units that are down because of a run and will be started again.
    paused: Vec<String>,
    /// Why it is not known what is down.
    unknown_paused: Option<String>,
    timer: String,
    /// How the last verify went, and of which run.
    verified: Option<Verified>,
    /// How the last one with a drill went, which may be an earlier one.
    drilled: Option<Verified>,
}

/// Prints where things stand; fails if anything is wrong.
pub async fn status(json: bool) -> Result<()> {
    let manager = Manager::connect().await?;
    let now = Timestamp::now();
    let restoring = is_at_work(&manager, &Restore::Run.into()).await?;
    let status = look(&manager, now, restoring).await?;
    match json {
        true => text::out(&text::json(&status)?),
        false => told::tell(&status, restoring, now),
    }
    if status.wrong.is_empty() {
        return Ok(());
    }
    // Everything has been said: only the exit code is left.
    Err(Exit { code: UNIT_FAILED, message: String::new() }.into())
}

async fn is_at_work(manager: &Manager, unit: &Unit) -> Result<bool> {
    Ok(!manager.state(&unit.to_string()).await?.is_settled())
}

async fn look(manager: &Manager, now: Timestamp, restoring: bool) -> Result<Status> {
    let root = &RootDirectory::host();
    let executor = manager.state(&Unit::Run.to_string()).await?;
    let running = !executor.is_settled();
    let records = Record::all(root)?;
    let timer = manager.state(&Unit::Timer.to_string()).await?;
    let (paused, unknown_paused) = match paused::load(root) {
        Ok(paused) => (paused, None),
        Err(error) => (None, Some(format!("{error:#}"))),
    };
    let verified = Verified::last()?;
    let half_restored = Journal::half_way(root).filter(|_| !restoring);
    let facts = Facts {
        now,
        at_work: running || restoring || is_at_work(manager, &Unit::Resume).await?,
        running,
        unstarted: unstarted(manager, Kind::Backup, records.first()).await?,
        clock: clock(manager, &timer).await,
        masked: (executor.load == "masked").then_some(executor.name),
        last: records.first(),
        paused: paused.iter().flatten().map(|paused| paused.unit.as_str()).collect(),
        down: half_restored.iter().chain(&unknown_paused).map(String::as_str).collect(),
        verified: verified.as_ref(),
    };
    Ok(Status {
        wrong: wrong::wrong(&facts),
        running,
        last_complete: records.iter().find(|record| record.outcome == Outcome::Complete).cloned(),
        last: records.into_iter().next(),
        paused: paused.unwrap_or_default().into_iter().map(|paused| paused.unit).collect(),
        unknown_paused,
        restore: Record::last(root, Kind::Restore)?,
        // A journal that cannot be read is told as what is half restored.
        left: restore::left(root).unwrap_or_default().into_iter().filter(|_| !restoring).collect(),
        half_restored,
        timer: if timer.load == "loaded" { timer.sub } else { timer.load },
        verified,
        drilled: Verified::last_drill()?,
    })
}

/// What is known of the timer.
async fn clock(manager: &Manager, timer: &UnitState) -> Clock {
    let last = manager.last_trigger(&timer.name).await.unwrap_or_default();
    Clock {
        load: timer.load.clone(),
        // There a target names it, and not what enables it.
        enablement: match remedy::is_nixos() {
            true => String::new(),
            false => manager.enablement(&timer.name).await.unwrap_or_default(),
        },
        runs: timer.active.is_running(),
        condition: timer.condition.clone(),
        last: last.filter(|_| has_triggered(&timer.name)),
    }
}

/// Whether the timer's stamp tells of a start. systemd makes one when a `Persistent=` timer is
/// first started, and after a reboot takes that for one.
fn has_triggered(timer: &str) -> bool {
    let Ok(stamp) = own::metadata(Path::new(STAMPS).join(format!("stamp-{timer}"))) else {
        return true;
    };
    // Where a file system keeps no time of birth it cannot be told.
    let (Ok(made), Ok(changed)) = (stamp.created(), stamp.modified()) else { return true };
    changed.duration_since(made).unwrap_or_default() > AT_ONCE || made > changed
}
