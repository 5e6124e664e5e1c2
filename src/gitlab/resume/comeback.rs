//! Starts the paused units again, each until it runs or is given up.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use anyhow::Result;
use tokio::time::Instant;

use crate::machine::Machine;
use crate::runs::drained::{self, Drained};
use crate::runs::paused;
use crate::systemd::{
    ActiveState, JobEvent, Mode, Paused, UnitState, UnitView, notify, stopped_along,
};

/// The pause between two attempts to start a failing unit, doubled each time up to the maximum.
/// There is no last attempt.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MOST: Duration = Duration::from_secs(30);
/// How often a unit is started whose condition is not met.
const CONDITION_TRIES: u32 = 3;
/// How often a unit is started that each time ends with success: such a unit is not meant to keep
/// running.
const END_TRIES: u32 = 5;
/// How long the signal of the job that stopped a unit may be delayed.
const SIGNAL_DELAY: Duration = Duration::from_millis(1500);

/// The attempts to start one unit.
struct Attempts {
    count: u32,
    /// The earliest time of the next attempt.
    next: Instant,
    /// The job of the last attempt, until its end is known.
    job: Option<u32>,
}

/// The state of a unit, as far as resume must act on it.
enum UnitComeback {
    /// Runs.
    Up,
    /// Cannot run again. The reason, to be appended to "was running before".
    Lost(String),
    /// Has a job, or may get one: nothing to do yet.
    Changing,
    /// Still stopping for the window, or told to end what is in progress.
    Stopping,
    /// Ready to be started.
    Down,
}

/// The paused units while they are started again.
pub(super) struct Comeback<'a> {
    machine: Machine<'a>,
    stop_grace: Duration,
    /// The units to start after the others.
    door: Vec<String>,
    /// The units that were told to end: they count as active until they have.
    drained: Vec<Drained>,
    view: UnitView<'a>,
    units: Vec<Paused>,
    attempts: HashMap<String, Attempts>,
    /// The units that are stopping, since when.
    stopping: HashMap<String, Instant>,
    /// The units that have run since: a later stop is not part of the window.
    ran: HashSet<String>,
    /// The units that were started and are down again, since when.
    gone: HashMap<String, Instant>,
    /// The units whose start was cancelled. Whether they were stopped or restarted shows when they
    /// are settled.
    cancelled: HashSet<String>,
}

impl<'a> Comeback<'a> {
    /// Begins with the recorded units, none of which has been started yet.
    pub async fn new(
        machine: Machine<'a>,
        stop_grace: Duration,
        door: Vec<String>,
        units: Vec<Paused>,
    ) -> Result<Self> {
        Ok(Self {
            machine,
            stop_grace,
            door,
            drained: drained::load(machine.root)?,
            view: UnitView::with_jobs(machine.manager).await?,
            units,
            attempts: HashMap::new(),
            stopping: HashMap::new(),
            ran: HashSet::new(),
            gone: HashMap::new(),
            cancelled: HashSet::new(),
        })
    }

    /// The units that are still recorded as paused.
    pub fn units(&self) -> &[Paused] {
        &self.units
    }

    /// Waits for a change of one of the units.
    pub async fn wait_for_change(&mut self) -> Result<()> {
        self.view.wait_for_change().await
    }

    /// Reads the units that have changed, and acts. Returns whether all run.
    pub async fn check_changed(&mut self) -> Result<bool> {
        self.view.handle_events();
        self.start_missing().await
    }

    /// Reads all units again, and acts. Returns whether all run.
    pub async fn check_all(&mut self) -> Result<bool> {
        self.view.mark_outdated();
        self.start_missing().await
    }

    /// Starts the units that are down, the door last. Returns whether all run.
    pub async fn start_missing(&mut self) -> Result<bool> {
        self.handle_jobs().await?;
        let (door, others) =
            self.units.iter().cloned().partition(|paused| self.door.contains(&paused.unit));
        Ok(self.start_down(others).await? && self.start_down(door).await?)
    }

    /// Starts those of `units` that are down. Returns whether all run.
    async fn start_down(&mut self, units: Vec<Paused>) -> Result<bool> {
        let mut waiting = Vec::new();
        for paused in units {
            let unit = &paused.unit;
            let state = self.view.state(unit).await?;
            match self.progress(&state) {
                UnitComeback::Up => {
                    self.ran.insert(unit.clone());
                    self.gone.remove(unit);
                    continue;
                }
                UnitComeback::Lost(why) => {
                    tracing::error!(unit, "was running before{why}");
                    self.forget(unit)?;
                    continue;
                }
                UnitComeback::Changing => {}
                UnitComeback::Stopping => {
                    self.kill_if_stuck(unit).await?;
                    // systemd runs the start after the stop.
                    if self.tried(unit) == 0 {
                        self.start(&paused).await?;
                    }
                }
                UnitComeback::Down => self.start(&paused).await?,
            }
            waiting.push(unit.clone());
        }
        if !waiting.is_empty() {
            notify::status(&format!("starting {}", waiting.join(", ")));
        }
        Ok(waiting.is_empty())
    }

    /// Decides what to do about a unit.
    fn progress(&mut self, state: &UnitState) -> UnitComeback {
        let unit = &state.name;
        let is_down = state.active.is_down();
        if is_down && ["not-found", "masked"].contains(&state.load.as_str()) {
            return UnitComeback::Lost(format!(
                " and is {} now: it cannot be started again",
                state.load
            ));
        }
        if let Some(why) = self.reason_to_give_up(state) {
            return UnitComeback::Lost(why);
        }
        let progress = match state.active {
            ActiveState::Active | ActiveState::Reloading
                if self.drained.contains(&Drained::of(state)) =>
            {
                UnitComeback::Stopping
            }
            // A job of a running unit may be a stop that waits for another unit.
            ActiveState::Active | ActiveState::Reloading if !state.has_job() => {
                return UnitComeback::Up;
            }
            // It has run since the window: an admin stops it, or systemd restarts it.
            ActiveState::Deactivating if self.ran.contains(unit) => return UnitComeback::Changing,
            ActiveState::Deactivating => UnitComeback::Stopping,
            ActiveState::Active | ActiveState::Reloading if self.tried(unit) == 0 => {
                UnitComeback::Down
            }
            ActiveState::Inactive | ActiveState::Failed if !state.has_job() => UnitComeback::Down,
            _ => UnitComeback::Changing,
        };
        match progress {
            UnitComeback::Down
                if self.cancelled.contains(unit) || is_down && self.may_be_admin_stop(unit) =>
            {
                UnitComeback::Changing
            }
            other => other,
        }
    }

    /// Why a unit is not started again after enough attempts.
    fn reason_to_give_up(&self, state: &UnitState) -> Option<String> {
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

    /// Whether a unit that has run, or whose start has ended unnoticed, went down so recently that
    /// the signal of an admin's stop may still arrive: a state may be read before the signals of
    /// the jobs that led to it.
    fn may_be_admin_stop(&mut self, unit: &str) -> bool {
        let has_open_job = self.attempts.get(unit).is_some_and(|attempts| attempts.job.is_some());
        if !has_open_job && !self.ran.contains(unit) {
            return false;
        }
        let since = *self.gone.entry(unit.to_owned()).or_insert_with(Instant::now);
        since.elapsed() < SIGNAL_DELAY
    }

    /// How often the unit was started.
    fn tried(&self, unit: &str) -> u32 {
        self.attempts.get(unit).map_or(0, |attempts| attempts.count)
    }

    /// Starts a unit, unless the next attempt is not due yet.
    async fn start(&mut self, paused: &Paused) -> Result<()> {
        let unit = &paused.unit;
        let (attempt, next) = self
            .attempts
            .get(unit)
            .map_or((0, Instant::now()), |attempts| (attempts.count, attempts.next));
        if Instant::now() < next {
            return Ok(());
        }
        let job = match self.queue_start(paused).await {
            Ok(job) => Some(job),
            Err(error) => {
                tracing::warn!(unit, attempt, "{error:#}");
                None
            }
        };
        self.gone.remove(unit);
        let delay = (RETRY_FIRST * 2u32.saturating_pow(attempt)).min(RETRY_MOST);
        let attempts = Attempts { count: attempt + 1, next: Instant::now() + delay, job };
        self.attempts.insert(unit.clone(), attempts);
        Ok(())
    }

    /// Queues the start, without the unit's requirements if one of these was down before the
    /// window.
    async fn queue_start(&mut self, paused: &Paused) -> Result<u32> {
        let manager = self.machine.manager;
        let mut mode = Mode::Replace;
        for unit in &paused.left_down {
            if manager.state(unit).await?.active.is_down() {
                mode = Mode::IgnoreRequirements;
            }
        }
        // The attempts of resume must not count for the unit's own start limit.
        manager.reset_failed(&paused.unit).await?;
        self.view.start(&paused.unit, mode).await
    }

    /// Kills a unit that is still stopping after `stop-grace`: otherwise it would keep GitLab down
    /// for ever.
    async fn kill_if_stuck(&mut self, unit: &str) -> Result<()> {
        let since = *self.stopping.entry(unit.to_owned()).or_insert_with(Instant::now);
        if since.elapsed() >= self.stop_grace {
            let grace = self.stop_grace;
            tracing::warn!(
                unit,
                ?grace,
                "still stopping: killing it, so that it can be started again"
            );
            self.stopping.insert(unit.to_owned(), Instant::now());
            self.machine.manager.kill(unit).await?;
        }
        Ok(())
    }

    /// Handles the jobs that have ended. A unit stays down if an admin stopped it, or cancelled its
    /// start.
    async fn handle_jobs(&mut self) -> Result<()> {
        while let Some(event) = self.view.job() {
            let JobEvent::Removed { id, unit, result } = event else { continue };
            if !self.units.iter().any(|paused| paused.unit == unit) {
                continue;
            }
            let is_own = self.end_attempt(&unit, id);
            match result.as_str() {
                "canceled" if is_own => drop(self.cancelled.insert(unit)),
                "done" => self.handle_done(&unit, is_own).await?,
                _ => {}
            }
        }
        for unit in self.cancelled.clone() {
            let state = self.view.state(&unit).await?;
            // A cancelled start takes a moment to end. If it was a restart, the unit starts again.
            if state.is_settled() {
                self.leave_down(&unit).await?;
            } else if state.has_job() || state.active != ActiveState::Active {
                continue;
            }
            self.cancelled.remove(&unit);
        }
        Ok(())
    }

    /// Notes that a job has ended. Returns whether it was the last attempt to start the unit.
    fn end_attempt(&mut self, unit: &str, job: u32) -> bool {
        let attempts = self.attempts.get_mut(unit);
        attempts.is_some_and(|attempts| attempts.job.take_if(|own| *own == job).is_some())
    }

    /// Handles a successful job: the start by resume, or another job, such as an admin's stop.
    async fn handle_done(&mut self, unit: &str, is_own: bool) -> Result<()> {
        let state = self.view.state(unit).await?;
        // The start of a unit whose condition is not met succeeds as well.
        if state.condition.is_some() {
            return Ok(());
        }
        if is_own {
            self.ran.insert(unit.to_owned());
        } else if self.ran.contains(unit) && state.is_settled() {
            self.leave_down(unit).await?;
        }
        Ok(())
    }

    /// Leaves a unit down that an admin has stopped, and the units that systemd stopped with it.
    async fn leave_down(&mut self, unit: &str) -> Result<()> {
        for unit in stopped_along(self.machine.manager, unit).await? {
            if self.units.iter().any(|paused| paused.unit == unit) {
                tracing::warn!(
                    unit,
                    "stopped by an admin while GitLab was being started: it stays down"
                );
                self.forget(&unit)?;
            }
        }
        Ok(())
    }

    /// Removes a unit from the record of paused units.
    fn forget(&mut self, unit: &str) -> Result<()> {
        paused::leave_down(&mut self.units, unit);
        paused::save(self.machine.root, &self.units)
    }
}
