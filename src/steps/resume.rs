//! Resume: starts again exactly what was running, and does not end before it runs and answers.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use anyhow::Result;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, sleep};

use crate::config::{Gitlab, ReadinessUrl};
use crate::runs::paused;
use crate::runs::restore::Journal;
use crate::systemd::{ActiveState, JobEvent, Manager, Paused, notify};
use crate::units::{Restore, Unit};

use super::{freeze, readiness};

const PAUSE: Duration = Duration::from_millis(50);
const READINESS_PAUSE: Duration = Duration::from_millis(50);
/// Between two attempts to start a unit that fails: patient, but never giving up.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MOST: Duration = Duration::from_secs(30);
/// How long what is left of a window's jobs may keep a bracket from being ended.
const RELEASE_PATIENCE: Duration = Duration::from_secs(10);

/// What resume goes by.
pub struct Manner {
    readiness: Option<ReadinessUrl>,
    stop_grace: Duration,
}

impl Default for Manner {
    /// For when the configuration cannot be read: a file that was broken meanwhile must not keep GitLab away.
    fn default() -> Self {
        Self { readiness: None, stop_grace: Duration::from_secs(10) }
    }
}

impl From<&Gitlab> for Manner {
    fn from(gitlab: &Gitlab) -> Self {
        Self { readiness: gitlab.readiness.clone(), stop_grace: gitlab.stop_grace.duration() }
    }
}

/// Brings back every unit on the record; returns when all run and GitLab answers. Nothing on record: nothing to do.
pub async fn resume(manner: &Manner) -> Result<()> {
    if let Some(why) = Journal::half_way() {
        tracing::error!("{why}");
        notify::status(&why);
        return Ok(());
    }
    // The second line: the window's end has done it already.
    if let Err(error) = freeze::thaw().await {
        tracing::error!("{error:#}");
    }
    let Some(units) = paused::load()? else { return Ok(()) };
    tracing::info!(units = units.len(), "starting again what was running");
    let manager = Manager::connect().await?;
    let mut resume =
        Resume { jobs: manager.jobs().await?, units, attempts: HashMap::new(), replaced: HashSet::new(), stopping: HashMap::new() };
    while !resume.all_running(manner, &manager).await? {
        sleep(PAUSE).await;
    }
    if let Some(url) = manner.readiness.as_ref().filter(|_| !resume.units.is_empty()) {
        while let Err(error) = readiness::ask(url).await {
            notify::status(&format!("GitLab's units run, waiting for its answer: {error}"));
            sleep(READINESS_PAUSE).await;
            // Something may have gone down again meanwhile.
            resume.all_running(manner, &manager).await?;
        }
    }
    paused::clear()?;
    release(&manager).await?;
    notify::status("GitLab is back");
    tracing::info!("GitLab is back");
    Ok(())
}

/// Ends the brackets of a run that is over. systemd looks once whether anybody needs it, when the executor ends; where that one was killed with
/// all that is called at its end, the jobs of the window are still queued in that moment, and nobody looks again.
async fn release(manager: &Manager) -> Result<()> {
    let started = Instant::now();
    let mut brackets = vec![Restore::Staging.into(), Unit::Staging];
    while !brackets.is_empty() && started.elapsed() < RELEASE_PATIENCE {
        for executor in [Unit::Run, Restore::Run.into()] {
            if !manager.state(&executor.to_string()).await?.is_settled() {
                return Ok(());
            }
        }
        // Whether the next run begins in this very moment, systemd alone knows.
        if manager.stop_unclaimed(&brackets[0].to_string()).await? {
            brackets.remove(0);
        } else {
            sleep(PAUSE).await;
        }
    }
    Ok(())
}

struct Resume {
    jobs: UnboundedReceiver<JobEvent>,
    units: Vec<Paused>,
    /// How often a unit was started, and when it may be started next.
    attempts: HashMap<String, (u32, Instant)>,
    /// Units whose stop was still queued when they were started: that job is cancelled by the start, and by nobody else.
    replaced: HashSet<String>,
    /// Since when a unit has been seen stopping.
    stopping: HashMap<String, Instant>,
}

impl Resume {
    async fn all_running(&mut self, manner: &Manner, manager: &Manager) -> Result<bool> {
        self.admin_stops(manager).await?;
        let mut waiting = Vec::new();
        for paused in self.units.clone() {
            let state = manager.state(&paused.unit).await?;
            match state.active {
                // With a job, a stop may wait behind another's.
                ActiveState::Active | ActiveState::Reloading if !state.has_job => continue,
                ActiveState::Deactivating => self.hurry(manner, manager, &paused.unit).await?,
                _ => {}
            }
            waiting.push(paused.unit.clone());
            let (attempt, next) = self.attempts.get(&paused.unit).copied().unwrap_or((0, Instant::now()));
            // A stop that still goes on gets the start queued behind it, once.
            let startable = match state.active {
                ActiveState::Deactivating | ActiveState::Active | ActiveState::Reloading => attempt == 0,
                _ => !state.has_job && !state.active.is_running(),
            };
            if startable && Instant::now() >= next {
                let delay = (RETRY_FIRST * 2u32.saturating_pow(attempt)).min(RETRY_MOST);
                self.attempts.insert(paused.unit.clone(), (attempt + 1, Instant::now() + delay));
                if state.has_job {
                    self.replaced.insert(paused.unit.clone());
                }
                if let Err(error) = start(manager, &paused).await {
                    tracing::warn!(unit = paused.unit, attempt, "{error:#}");
                }
            }
        }
        if !waiting.is_empty() {
            notify::status(&format!("starting {}", waiting.join(", ")));
        }
        Ok(waiting.is_empty())
    }

    /// A stop that hangs would keep GitLab away for ever: after `stop-grace` the unit is killed.
    async fn hurry(&mut self, manner: &Manner, manager: &Manager, unit: &str) -> Result<()> {
        let since = *self.stopping.entry(unit.to_owned()).or_insert_with(Instant::now);
        if since.elapsed() >= manner.stop_grace {
            tracing::warn!(unit, grace = ?manner.stop_grace, "still stopping: killing it, so that it can be started again");
            self.stopping.insert(unit.to_owned(), Instant::now());
            manager.kill(unit).await?;
        }
        Ok(())
    }

    /// A start that was cancelled was cancelled by somebody: the unit stays down.
    async fn admin_stops(&mut self, manager: &Manager) -> Result<()> {
        while let Ok(event) = self.jobs.try_recv() {
            let JobEvent::Removed(unit, result) = event else { continue };
            let ours = self.attempts.contains_key(&unit) && self.units.iter().any(|paused| paused.unit == unit);
            if ours && result == "canceled" && !self.replaced.remove(&unit) && !manager.state(&unit).await?.active.is_running() {
                tracing::warn!(unit, "stopped by an admin while GitLab was being started: it stays down");
                paused::leave_down(&mut self.units, &unit);
                paused::save(&self.units)?;
            }
        }
        Ok(())
    }
}

/// Starts a unit; without its requirements where they would bring up what was down before.
async fn start(manager: &Manager, paused: &Paused) -> Result<()> {
    let mut mode = "replace";
    for unit in &paused.left_down {
        if manager.state(unit).await?.active.is_down() {
            mode = "ignore-requirements";
        }
    }
    manager.start(&paused.unit, mode).await
}
