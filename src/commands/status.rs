//! `status`: shows problems, what is running now and the last runs.

mod print;
mod problems;

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;
use serde::Serialize;

use crate::exit::{Exit, UNIT_FAILED};
use crate::host::{own, remedy, text};
use crate::paths::{self, RootDirectory};
use crate::run::unstarted;
use crate::runs::restore::{self, RestoreJournal};
use crate::runs::{Kind, Outcome, Record, Verified, paused};
use crate::systemd::{HostJournal, Manager, ServiceManager, UnitState};
use crate::units::{Restore, Unit};

use problems::{Facts, TimerState};

/// The directory of systemd's stamp files for timers, systemd.timer(5) `Persistent=`.
/// The longest time between the creation of a stamp file and the first setting of its date.
const AT_ONCE: Duration = Duration::from_secs(1);

/// The JSON of `status`: fields are added, never renamed.
#[derive(Serialize)]
struct Status {
    /// The problems that an admin must solve. The exit code is 3 if there are any.
    wrong: Vec<String>,
    running: bool,
    /// The running or else the last run.
    last: Option<Record>,
    last_complete: Option<Record>,
    /// The last restore.
    restore: Option<Record>,
    /// Why GitLab must not run, if a restore ended half way.
    half_restored: Option<String>,
    /// Data of a restore that is left beside the live data, and what happens to it.
    left: Vec<String>,
    /// Units that are down because of a run and will be started again.
    paused: Vec<String>,
    /// Why the units that are down are unknown.
    unknown_paused: Option<String>,
    timer: String,
    /// The result of the last verification.
    verified: Option<Verified>,
    /// The result of the last verification with a drill, which may be an earlier one.
    drilled: Option<Verified>,
}

/// Prints the status. Fails if there are problems.
pub async fn status(json: bool) -> Result<()> {
    let manager = Manager::connect().await?;
    let now = Timestamp::now();
    let restoring = is_running(&manager, &Restore::Run.into()).await?;
    let status = collect(&manager, now, restoring).await?;
    match json {
        true => text::out(&text::json(&status)?),
        false => print::print(&status, restoring, now),
    }
    if status.wrong.is_empty() {
        return Ok(());
    }
    // The problems have been printed already.
    Err(Exit { code: UNIT_FAILED, message: String::new() }.into())
}

async fn is_running(manager: &Manager, unit: &Unit) -> Result<bool> {
    Ok(!manager.state(&unit.to_string()).await?.is_settled())
}

/// Collects the status of this host. `restoring`: a restore is running.
async fn collect(manager: &Manager, now: Timestamp, restoring: bool) -> Result<Status> {
    let root = &RootDirectory::host();
    let executor = manager.state(&Unit::Run.to_string()).await?;
    let running = !executor.is_settled();
    let records = Record::all(root, now)?;
    let timer = manager.state(&Unit::Timer.to_string()).await?;
    let (paused, unknown_paused) = match paused::load(root) {
        Ok(paused) => (paused, None),
        Err(error) => (None, Some(format!("{error:#}"))),
    };
    let verified = Verified::last(root)?;
    let half_restored = RestoreJournal::half_way(root).filter(|_| !restoring);
    let facts = Facts {
        now,
        busy: running || restoring || is_running(manager, &Unit::Resume).await?,
        running,
        unstarted: unstarted(manager, &HostJournal, Kind::Backup, records.first()).await?,
        timer: timer_state(manager, &timer).await,
        masked: (executor.load == "masked").then_some(executor.name),
        last: records.first(),
        paused: paused.iter().flatten().map(|paused| paused.unit.as_str()).collect(),
        down: half_restored.iter().chain(&unknown_paused).map(String::as_str).collect(),
        verified: verified.as_ref(),
    };
    Ok(Status {
        wrong: problems::problems(&facts),
        running,
        last_complete: records.iter().find(|record| record.outcome == Outcome::Complete).cloned(),
        last: records.into_iter().next(),
        paused: paused.unwrap_or_default().into_iter().map(|paused| paused.unit).collect(),
        unknown_paused,
        restore: Record::last(root, Kind::Restore)?,
        // A journal that cannot be read is reported by `half_restored`.
        left: restore::left(root).unwrap_or_default().into_iter().filter(|_| !restoring).collect(),
        half_restored,
        timer: if timer.load == "loaded" { timer.sub } else { timer.load },
        verified,
        drilled: Verified::last_drill(root)?,
    })
}

/// The state of the timer that starts runs.
async fn timer_state(manager: &Manager, timer: &UnitState) -> TimerState {
    let last = manager.last_trigger(&timer.name).await.unwrap_or_default();
    TimerState {
        load: timer.load.clone(),
        // On NixOS the configuration enables the timer, and systemd does not know it as enabled.
        enablement: match remedy::is_nixos() {
            true => String::new(),
            false => manager.enablement(&timer.name).await.unwrap_or_default(),
        },
        running: timer.active.is_running(),
        condition: timer.condition.clone(),
        last: last.filter(|_| has_triggered(&timer.name)),
    }
}

/// Whether the timer ever started its unit, by its stamp file. systemd creates the stamp when a
/// `Persistent=` timer is first activated, and after a reboot reads it as the last trigger.
fn has_triggered(timer: &str) -> bool {
    let Ok(stamp) = own::metadata(Path::new(paths::TIMERS).join(format!("stamp-{timer}"))) else {
        return true;
    };
    // Some file systems do not record the time of creation.
    let (Ok(created), Ok(changed)) = (stamp.created(), stamp.modified()) else { return true };
    changed.duration_since(created).unwrap_or_default() > AT_ONCE || created > changed
}
