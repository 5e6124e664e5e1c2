//! The units that are to run again, and what is done for each.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use anyhow::Result;
use tokio::time::Instant;

use crate::machine::Machine;
use crate::runs::paused;
use crate::systemd::{
    ActiveState, JobEvent, Mode, Paused, UnitState, UnitView, notify, stopped_along,
};

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

/// Starts of one unit.
struct Attempts {
    count: u32,
    /// When it may be started next.
    next: Instant,
    /// The job of the last one.
    job: u32,
}

/// How a unit stands.
enum Progress {
    Up,
    /// It cannot be had again, and why, to stand after "was running before".
    Lost(String),
    /// Nothing is to be done but wait.
    Waits,
    /// It is on its way down, by the window's stop.
    Stops,
    /// It may be started.
    Down,
}

/// GitLab's units on their way back.
pub(super) struct Comeback<'a> {
    machine: Machine<'a>,
    stop_grace: Duration,
    view: UnitView<'a>,
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

impl<'a> Comeback<'a> {
    /// None of `units` has been started yet.
    pub async fn new(
        machine: Machine<'a>,
        stop_grace: Duration,
        units: Vec<Paused>,
    ) -> Result<Self> {
        Ok(Self {
            machine,
            stop_grace,
            view: UnitView::with_jobs(machine.manager).await?,
            units,
            attempts: HashMap::new(),
            stopping: HashMap::new(),
            ran: HashSet::new(),
            gone: HashMap::new(),
            cancelled: HashSet::new(),
        })
    }

    /// Those that are still on the record.
    pub fn units(&self) -> &[Paused] {
        &self.units
    }

    /// Waits until something has happened to one of them.
    pub async fn changed(&mut self) -> Result<()> {
        self.view.changed().await
    }

    /// A look at those of which something was told since; whether all run.
    pub async fn look(&mut self) -> Result<bool> {
        self.view.refresh();
        self.all_running().await
    }

    /// The same for all of them, as they are now.
    pub async fn look_again(&mut self) -> Result<bool> {
        self.view.read_again();
        self.all_running().await
    }

    /// Starts what is not on its way, and tells whether all run.
    pub async fn all_running(&mut self) -> Result<bool> {
        self.admin_stops().await?;
        let mut waiting = Vec::new();
        for paused in self.units.clone() {
            let unit = &paused.unit;
            let state = self.view.state(unit).await?;
            match self.progress(&state) {
                Progress::Up => {
                    self.ran.insert(unit.clone());
                    self.gone.remove(unit);
                    continue;
                }
                Progress::Lost(why) => {
                    tracing::error!(unit, "was running before{why}");
                    self.leave(unit)?;
                    continue;
                }
                Progress::Waits => {}
                Progress::Stops => {
                    self.hurry(unit).await?;
                    // The start is queued behind the stop, once.
                    if self.tried(unit) == 0 {
                        self.start(&paused).await?;
                    }
                }
                Progress::Down => self.start(&paused).await?,
            }
            waiting.push(unit.clone());
        }
        if !waiting.is_empty() {
            notify::status(&format!("starting {}", waiting.join(", ")));
        }
        Ok(waiting.is_empty())
    }

    fn progress(&mut self, state: &UnitState) -> Progress {
        let unit = &state.name;
        let is_down = state.active.is_down();
        if is_down && ["not-found", "masked"].contains(&state.load.as_str()) {
            return Progress::Lost(format!(
                " and is {} now: it cannot be started again",
                state.load
            ));
        }
        if let Some(why) = self.why_not(state) {
            return Progress::Lost(why);
        }
        let progress = match state.active {
            // With a job, a stop may wait behind another's.
            ActiveState::Active | ActiveState::Reloading if !state.has_job() => {
                return Progress::Up;
            }
            // It has run since: its stop is not the window's, and somebody's who wants it, or
            // is followed by systemd's own start.
            ActiveState::Deactivating if self.ran.contains(unit) => return Progress::Waits,
            ActiveState::Deactivating => Progress::Stops,
            ActiveState::Active | ActiveState::Reloading if self.tried(unit) == 0 => Progress::Down,
            ActiveState::Inactive | ActiveState::Failed if !state.has_job() => Progress::Down,
            _ => Progress::Waits,
        };
        let is_told = self.cancelled.contains(unit) || is_down && self.is_news(unit);
        match progress {
            // A stop that hangs is hurried all the same.
            Progress::Down if is_told => Progress::Waits,
            other => other,
        }
    }

    /// Why a unit that was started often enough is not started again.
    fn why_not(&self, state: &UnitState) -> Option<String> {
        if !state.is_settled() {
            return None;
        }
        let tried = self.tried(&state.name);
        if let Some(condition) = state.condition.as_ref().filter(|_| tried >= CONDITION_TRIES) {
            return Some(format!(
                " and cannot be started again: {condition} is not met (see 'systemctl cat')"
            ));
        }
        let ended = state.active == ActiveState::Inactive && state.result == "success";
        (ended && tried >= END_TRIES).then(|| {
            ", and ends by itself each time that it is started: it is not waited for".to_owned()
        })
    }

    /// Whether it has run and is down, and who has stopped it is about to be told.
    fn is_news(&mut self, unit: &str) -> bool {
        if !self.ran.contains(unit) {
            return false;
        }
        let since = *self.gone.entry(unit.to_owned()).or_insert_with(Instant::now);
        since.elapsed() < NEWS
    }

    /// How often it was started.
    fn tried(&self, unit: &str) -> u32 {
        self.attempts.get(unit).map_or(0, |attempts| attempts.count)
    }

    /// Starts a unit, unless it is too early; without its requirements where they would bring up
    /// what was down before.
    async fn start(&mut self, paused: &Paused) -> Result<()> {
        let unit = &paused.unit;
        let (attempt, next) = self
            .attempts
            .get(unit)
            .map_or((0, Instant::now()), |attempts| (attempts.count, attempts.next));
        if Instant::now() < next {
            return Ok(());
        }
        let job = match self.queue(paused).await {
            Ok(job) => job,
            Err(error) => {
                tracing::warn!(unit, attempt, "{error:#}");
                0
            }
        };
        let delay = (RETRY_FIRST * 2u32.saturating_pow(attempt)).min(RETRY_MOST);
        let attempts = Attempts { count: attempt + 1, next: Instant::now() + delay, job };
        self.attempts.insert(unit.clone(), attempts);
        Ok(())
    }

    async fn queue(&mut self, paused: &Paused) -> Result<u32> {
        let manager = self.machine.manager;
        let mut mode = Mode::Replace;
        for unit in &paused.left_down {
            if manager.state(unit).await?.active.is_down() {
                mode = Mode::IgnoreRequirements;
            }
        }
        // GitLab's own units have a start limit, and starts of ours are no sign of a unit that
        // cannot run.
        manager.reset_failed(&paused.unit).await?;
        self.view.start(&paused.unit, mode).await
    }

    /// A stop that hangs would keep GitLab away for ever: after `stop-grace` the unit is killed.
    async fn hurry(&mut self, unit: &str) -> Result<()> {
        let since = *self.stopping.entry(unit.to_owned()).or_insert_with(Instant::now);
        if since.elapsed() >= self.stop_grace {
            tracing::warn!(unit, grace = ?self.stop_grace, "still stopping: killing it, so that it can be started again");
            self.stopping.insert(unit.to_owned(), Instant::now());
            self.machine.manager.kill(unit).await?;
        }
        Ok(())
    }

    /// A start of ours that was cancelled was cancelled by somebody, and what ran and was stopped
    /// as well: the unit stays down.
    async fn admin_stops(&mut self) -> Result<()> {
        while let Some(event) = self.view.job() {
            let JobEvent::Removed { id, unit, result } = event else { continue };
            if !self.units.iter().any(|paused| paused.unit == unit) {
                continue;
            }
            let ours = self.attempts.get(&unit).is_some_and(|attempts| attempts.job == id);
            match result.as_str() {
                "canceled" if ours => drop(self.cancelled.insert(unit)),
                "done" => self.job_done(&unit, ours).await?,
                _ => {}
            }
        }
        for unit in self.cancelled.clone() {
            let state = self.view.state(&unit).await?;
            // A start that is cut off takes a moment to end; a restart starts it again.
            if state.is_settled() {
                self.stay_down(&unit).await?;
            } else if state.has_job() || state.active != ActiveState::Active {
                continue;
            }
            self.cancelled.remove(&unit);
        }
        Ok(())
    }

    /// A job is done: our start, or somebody's stop.
    async fn job_done(&mut self, unit: &str, ours: bool) -> Result<()> {
        let state = self.view.state(unit).await?;
        // A start that a condition has kept from anything is done too.
        if state.condition.is_some() {
            return Ok(());
        }
        if ours {
            self.ran.insert(unit.to_owned());
        } else if self.ran.contains(unit) && state.is_settled() {
            self.stay_down(unit).await?;
        }
        Ok(())
    }

    async fn stay_down(&mut self, unit: &str) -> Result<()> {
        for unit in stopped_along(self.machine.manager, unit).await? {
            if self.units.iter().any(|paused| paused.unit == unit) {
                tracing::warn!(
                    unit,
                    "stopped by an admin while GitLab was being started: it stays down"
                );
                self.leave(&unit)?;
            }
        }
        Ok(())
    }

    /// Takes a unit off the record.
    fn leave(&mut self, unit: &str) -> Result<()> {
        paused::leave_down(&mut self.units, unit);
        paused::save(self.machine.root, &self.units)
    }
}
