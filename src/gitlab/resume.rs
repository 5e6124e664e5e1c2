//! Resume: starts again exactly what was running, and does not end before it runs and answers.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use anyhow::{Result, anyhow};
use tokio::time::{Instant, sleep};

use crate::config::{Gitlab, Quiesce, ReadinessUrl};
use crate::gitlab::readiness::Readiness;
use crate::gitlab::{freeze, restored};
use crate::runs::paused;
use crate::runs::restore::Journal;
use crate::systemd::{ActiveState, JobEvent, Jobs, Manager, Paused, notify, stopped_along};
use crate::units::{Restore, Unit};

const PAUSE: Duration = Duration::from_millis(50);
const READINESS_PAUSE: Duration = Duration::from_millis(50);
const READINESS_MOST: Duration = Duration::from_secs(1);
/// How long an answer is waited for when somebody has stopped a part of GitLab: it may be the part
/// that answers.
const INCOMPLETE_PATIENCE: Duration = Duration::from_secs(60);
/// Between two attempts to start a unit that fails: patient, but never giving up.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MOST: Duration = Duration::from_secs(30);
/// How often a unit is started of which a condition is not met.
const CONDITION_TRIES: u32 = 3;
/// How often a unit is started that ends well by itself each time: it does what it has to, and does
/// not stay.
const END_TRIES: u32 = 5;
/// How long it may take until it is told who has stopped a unit.
const NEWS: Duration = Duration::from_millis(1500);
/// How long what is left of a window's jobs may keep a bracket from being ended.
const RELEASE_PATIENCE: Duration = Duration::from_secs(10);

/// What resume goes by.
pub struct Manner {
    readiness: Option<ReadinessUrl>,
    stop_grace: Duration,
    /// Nothing is stopped for a backup: GitLab's answer shows that it goes on.
    freezes: bool,
}

impl Default for Manner {
    /// For when the configuration cannot be read: a file that was broken meanwhile must not keep
    /// GitLab away.
    fn default() -> Self {
        Self { readiness: None, stop_grace: Duration::from_secs(10), freezes: false }
    }
}

impl From<&Gitlab> for Manner {
    fn from(gitlab: &Gitlab) -> Self {
        Self {
            readiness: gitlab.readiness.clone(),
            stop_grace: gitlab.stop_grace.duration(),
            freezes: gitlab.quiesce == Quiesce::Freeze,
        }
    }
}

/// Brings back every unit on the record; returns when all run and GitLab answers. Nothing on
/// record: nothing to do.
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
    let mut resume = Resume {
        jobs: manager.jobs().await?,
        units,
        attempts: HashMap::new(),
        stopping: HashMap::new(),
        ran: HashSet::new(),
        gone: HashMap::new(),
        cancelled: HashSet::new(),
    };
    while !resume.all_running(manner, &manager).await? {
        resume.jobs.wait().await;
    }
    if let Some(url) = manner
        .readiness
        .as_ref()
        .filter(|_| (manner.freezes || !resume.units.is_empty()) && paused::is_to_answer())
    {
        let started = Instant::now();
        let readiness = Readiness::of(url);
        loop {
            let asked = match &readiness {
                Ok(readiness) => readiness.ask().await,
                Err(error) => Err(anyhow!("{error:#}")),
            };
            let error = match asked {
                // Somebody else may have answered in its place.
                Ok(()) if resume.all_running(manner, &manager).await? => break,
                Ok(()) => anyhow!("it answers, and not all of it runs"),
                Err(error) => error,
            };
            let missing = paused::missing(&resume.units);
            let any = manner.freezes || !resume.units.is_empty();
            if !any || !missing.is_empty() && started.elapsed() > INCOMPLETE_PATIENCE {
                let missing = missing.join(", ");
                if manner.freezes {
                    tracing::warn!(
                        "GitLab does not answer ({error:#}), and is not waited for: {missing} were frozen and are not any more"
                    );
                } else {
                    tracing::warn!(
                        "GitLab does not answer ({error:#}), and is not waited for: {missing} ran before and were stopped meanwhile"
                    );
                }
                return over(&manager).await;
            }
            notify::status(&format!("GitLab's units run, waiting for its answer: {error}"));
            // Often while it may come any moment, seldom when it is late.
            sleep((started.elapsed() / 100).clamp(READINESS_PAUSE, READINESS_MOST)).await;
            // Something may have gone down again meanwhile.
            resume.all_running(manner, &manager).await?;
        }
    }
    over(&manager).await?;
    restored::finish_later(&manager).await?;
    notify::status("GitLab is back");
    tracing::info!("GitLab is back");
    Ok(())
}

/// Nothing is paused any more.
async fn over(manager: &Manager) -> Result<()> {
    paused::clear()?;
    release(manager).await
}

/// Ends the brackets of a run that is over. systemd looks once whether anybody needs it, when the
/// executor ends; where that one was killed with all that is called at its end, the jobs of the
/// window are still queued in that moment, and nobody looks again.
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

/// Starts of one unit.
struct Attempts {
    count: u32,
    /// When it may be started next.
    next: Instant,
    /// The job of the last one.
    job: u32,
}

struct Resume {
    jobs: Jobs,
    units: Vec<Paused>,
    attempts: HashMap<String, Attempts>,
    /// Since when a unit has been seen stopping.
    stopping: HashMap<String, Instant>,
    /// What has run since: no stop of it is the window's any more.
    ran: HashSet<String>,
    /// Since when something of that has been seen down.
    gone: HashMap<String, Instant>,
    /// Somebody has cancelled their start; what for, is known when nothing more happens to them.
    cancelled: HashSet<String>,
}

impl Resume {
    async fn all_running(&mut self, manner: &Manner, manager: &Manager) -> Result<bool> {
        self.admin_stops(manager).await?;
        let mut waiting = Vec::new();
        for paused in self.units.clone() {
            let state = manager.state(&paused.unit).await?;
            match state.active {
                // With a job, a stop may wait behind another's.
                ActiveState::Active | ActiveState::Reloading if !state.has_job => {
                    self.ran.insert(paused.unit.clone());
                    self.gone.remove(&paused.unit);
                    continue;
                }
                // It has run since: its stop is not the window's, and somebody's who wants it, or
                // is followed by systemd's own start.
                ActiveState::Deactivating if self.ran.contains(&paused.unit) => {
                    waiting.push(paused.unit.clone());
                    continue;
                }
                ActiveState::Deactivating => self.hurry(manner, manager, &paused.unit).await?,
                active
                    if active.is_down()
                        && ["not-found", "masked"].contains(&state.load.as_str()) =>
                {
                    tracing::error!(
                        unit = paused.unit,
                        "was running before and is {} now: it cannot be started again",
                        state.load
                    );
                    self.leave(&paused.unit)?;
                    continue;
                }
                ActiveState::Inactive
                    if !state.has_job
                        && self.tried(&paused.unit) >= END_TRIES
                        && state.result == "success" =>
                {
                    tracing::error!(
                        unit = paused.unit,
                        "was running before, and ends by itself each time that it is started: it is not waited for"
                    );
                    self.leave(&paused.unit)?;
                    continue;
                }
                active
                    if active.is_down()
                        && !state.has_job
                        && self.tried(&paused.unit) >= CONDITION_TRIES
                        && state.condition.is_some() =>
                {
                    let condition = state.condition.as_deref().unwrap_or_default();
                    tracing::error!(
                        unit = paused.unit,
                        "was running before and cannot be started again: {condition} is not met (see 'systemctl cat')"
                    );
                    self.leave(&paused.unit)?;
                    continue;
                }
                _ => {}
            }
            waiting.push(paused.unit.clone());
            if self.cancelled.contains(&paused.unit) {
                continue;
            }
            if self.ran.contains(&paused.unit) && state.active.is_down() {
                // Who has stopped it is about to be told.
                let since = *self.gone.entry(paused.unit.clone()).or_insert_with(Instant::now);
                if since.elapsed() < NEWS {
                    continue;
                }
            }
            let (attempt, next) = self
                .attempts
                .get(&paused.unit)
                .map_or((0, Instant::now()), |attempts| (attempts.count, attempts.next));
            // A stop that still goes on gets the start queued behind it, once.
            let startable = match state.active {
                ActiveState::Deactivating | ActiveState::Active | ActiveState::Reloading => {
                    attempt == 0
                }
                _ => !state.has_job && !state.active.is_running(),
            };
            if startable && Instant::now() >= next {
                let delay = (RETRY_FIRST * 2u32.saturating_pow(attempt)).min(RETRY_MOST);
                let job = match start(manager, &paused).await {
                    Ok(job) => job,
                    Err(error) => {
                        tracing::warn!(unit = paused.unit, attempt, "{error:#}");
                        0
                    }
                };
                self.attempts.insert(
                    paused.unit.clone(),
                    Attempts { count: attempt + 1, next: Instant::now() + delay, job },
                );
            }
        }
        if !waiting.is_empty() {
            notify::status(&format!("starting {}", waiting.join(", ")));
        }
        Ok(waiting.is_empty())
    }

    /// How often it was started.
    fn tried(&self, unit: &str) -> u32 {
        self.attempts.get(unit).map_or(0, |attempts| attempts.count)
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

    /// A start of ours that was cancelled was cancelled by somebody, and what ran and was stopped
    /// as well: the unit stays down.
    async fn admin_stops(&mut self, manager: &Manager) -> Result<()> {
        while let Some(event) = self.jobs.take() {
            let JobEvent::Removed { id, unit, result } = event else { continue };
            if !self.units.iter().any(|paused| paused.unit == unit) {
                continue;
            }
            let ours = self.attempts.get(&unit).is_some_and(|attempts| attempts.job == id);
            let cancelled = ours && result == "canceled";
            let done = result == "done";
            if !cancelled && !done {
                continue;
            }
            let state = manager.state(&unit).await?;
            // A start that a condition has kept from anything is done too.
            let stopped = done && !ours && self.ran.contains(&unit) && state.condition.is_none();
            if done && ours && state.condition.is_none() {
                self.ran.insert(unit.clone());
            }
            if cancelled {
                self.cancelled.insert(unit);
            } else if stopped && state.is_settled() {
                self.stay_down(manager, &unit).await?;
            }
        }
        for unit in self.cancelled.clone() {
            let state = manager.state(&unit).await?;
            // A start that is cut off takes a moment to end; a restart starts it again.
            if state.is_settled() {
                self.stay_down(manager, &unit).await?;
            } else if state.has_job || state.active != ActiveState::Active {
                continue;
            }
            self.cancelled.remove(&unit);
        }
        Ok(())
    }

    async fn stay_down(&mut self, manager: &Manager, unit: &str) -> Result<()> {
        for unit in stopped_along(manager, unit).await? {
            self.stays_down(&unit)?;
        }
        Ok(())
    }

    fn stays_down(&mut self, unit: &str) -> Result<()> {
        if self.units.iter().any(|paused| paused.unit == unit) {
            tracing::warn!(
                unit,
                "stopped by an admin while GitLab was being started: it stays down"
            );
            self.leave(unit)?;
        }
        Ok(())
    }

    /// Takes a unit off the record.
    fn leave(&mut self, unit: &str) -> Result<()> {
        paused::leave_down(&mut self.units, unit);
        paused::save(&self.units)
    }
}

/// Starts a unit; without its requirements where they would bring up what was down before.
async fn start(manager: &Manager, paused: &Paused) -> Result<u32> {
    let mut mode = "replace";
    for unit in &paused.left_down {
        if manager.state(unit).await?.active.is_down() {
            mode = "ignore-requirements";
        }
    }
    // GitLab's own units have a start limit, and starts of ours are no sign of a unit that cannot
    // run.
    manager.reset(&paused.unit).await?;
    manager.start_job(&paused.unit, mode).await
}
