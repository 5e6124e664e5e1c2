//! Opens the window and follows it: records the running units, starts the window, and waits until
//! everything is captured and the window has closed.

use std::time::Duration;

use anyhow::Result;
use futures_util::future::join_all;
use tokio::time::Instant;

use super::stage;
use super::stops;
use super::watch::Watch;
use super::window::Window;
use crate::config::Config;
use crate::machine::Machine;
use crate::run::Failed;
use crate::runs::held::HoldAccount;
use crate::runs::{drained, paused};
use crate::systemd::{
    Mode, Paused, ServiceManager, UnitState, UnitView, notify, running, stop_closure,
};
use crate::units::Unit;

/// The times of a window, in microseconds of CLOCK_MONOTONIC.
#[derive(Debug, Clone)]
pub(super) struct Captured {
    /// When the first stop was queued.
    pub since: u64,
    /// If GitLab was frozen or held, and not stopped: when that began. The end of the window lets
    /// it go.
    pub frozen: Option<u64>,
    /// When all writers were down, or frozen.
    pub opened: u64,
    /// When the window ended.
    pub closed: u64,
    /// The units that did not stop in time: systemd has ended them by force.
    pub killed: Vec<String>,
}

impl Captured {
    /// A warning for each killed unit.
    pub fn warnings(&self) -> impl Iterator<Item = String> + '_ {
        self.killed.iter().map(|unit| {
            format!(
                "{unit} did not stop in time and systemd ended it by force: a write may be \
                 incomplete in this backup (TimeoutStopSec= in its unit, journalctl -u {unit})"
            )
        })
    }
}

/// Opens the window, and waits until all its members are done and it has closed again.
pub(super) async fn capture(
    config: &Config,
    machine: Machine<'_>,
    window: &Window,
) -> Result<Captured> {
    let Machine { manager, root, .. } = machine;
    stage::prepare(manager, &window.members).await?;
    let brackets = [window.target.clone(), window.window.clone(), window.pause.clone()];
    stage::prepare(manager, &brackets).await?;
    if let Some(deadline) = &window.deadline {
        stage::prepare(manager, std::slice::from_ref(deadline)).await?;
        stop_stale_deadline_timer(manager).await?;
    }
    stage::prepare(manager, &window.gates).await?;
    let view = UnitView::with_jobs(manager).await?;
    let (states, waited) = wait_for_jobs(config, machine, window).await?;
    let closure: Vec<String> = states.iter().map(|state| state.name.clone()).collect();
    let mut running = running(manager, &states).await?;
    running.retain(|paused| !window.driven.contains(&paused.unit));
    tracing::info!(units = ?names(&running), "GitLab's running units");
    let known = names(&running);
    running.extend(window.paused.iter().filter(|paused| !known.contains(&paused.unit)).cloned());
    if window.must_answer || waited {
        // GitLab did not answer at the start of the run if it was still starting; it will now.
        paused::record_answer(root, true, &names(&running))?;
    }
    paused::save(root, &running)?;
    let opened = open(config, machine, window, view, closure, running).await;
    if opened.is_err()
        && !manager
            .state(&window.pause.to_string())
            .await
            .is_ok_and(|pause| pause.active.is_running() || pause.has_job())
    {
        // The pause did not start, so its end will not start resume. Resume clears the record.
        manager.start_later(&Unit::Resume.to_string()).await?;
    }
    opened
}

/// Stops the timer of an earlier window that failed to open: PartOf= follows only stops, so the
/// timer still runs, and would end this window early.
async fn stop_stale_deadline_timer(manager: &dyn ServiceManager) -> Result<()> {
    let timer = Unit::DeadlineTimer.to_string();
    let mut view = UnitView::new(manager).await?;
    view.stop(&timer).await?;
    view.wait_until_settled(&timer).await.map(drop)
}

fn names(units: &[Paused]) -> Vec<String> {
    units.iter().map(|paused| paused.unit.clone()).collect()
}

/// Waits until none of the units to stop has a job: the stop would cancel a queued start, and the
/// unit would be missing afterwards. Returns the states of all units that the window will stop, and
/// whether it had to wait.
async fn wait_for_jobs(
    config: &Config,
    machine: Machine<'_>,
    window: &Window,
) -> Result<(Vec<UnitState>, bool)> {
    let manager = machine.manager;
    let started = Instant::now();
    let units = [&window.stopped[..], &window.driven].concat();
    let mut view = UnitView::new(manager).await?;
    let mut waited = false;
    loop {
        let states = stop_closure(manager, &units, &window.alone).await?;
        let frozen = window.frozen.iter().map(|unit| manager.state(unit));
        let others = join_all(frozen).await.into_iter().collect::<Result<Vec<_>>>()?;
        let Some(busy) = states.iter().chain(&others).find(|state| state.has_job()) else {
            return Ok((states, waited));
        };
        if started.elapsed() >= config.gitlab.settle.duration() {
            let reason = format!(
                "is being started or stopped, and was for {} ([gitlab] settle): GitLab was not \
                 touched; 'systemctl list-jobs' tells what it waits for",
                config.gitlab.settle
            );
            return Err(Failed::new(busy, reason).into());
        }
        notify::status(&format!("waiting for {}, which is being started or stopped", busy.name));
        waited = true;
        for state in states.iter().chain(&others) {
            view.watch(std::slice::from_ref(&state.name));
        }
        view.wait_for_change().await?;
    }
}

/// Starts the window and watches it to its end.
async fn open(
    config: &Config,
    machine: Machine<'_>,
    window: &Window,
    mut view: UnitView<'_>,
    closure: Vec<String>,
    running: Vec<Paused>,
) -> Result<Captured> {
    let manager = machine.manager;
    drained::clear(machine.root)?;
    for gate in &window.gates {
        stage::start_bracket(manager, gate).await?;
    }
    let since = machine.clock.monotonic();
    let target_job = view.start(&window.target.to_string(), Mode::Replace).await?;
    let driven = stop_closure(manager, &window.driven, &[])
        .await?
        .into_iter()
        .map(|state| state.name)
        .collect();
    view.watch(&closure);
    let mut watch =
        Watch::new(config, machine, window, view, since, target_job, closure, driven, running);
    let captured = watch.until_end().await;
    stops::stop_marks(manager).await?;
    captured
}

impl Watch<'_> {
    /// Watches the window from its start to its end.
    async fn until_end(&mut self) -> Result<Captured> {
        loop {
            self.handle_jobs().await?;
            if let Some(captured) = self.check().await? {
                return Ok(captured);
            }
            self.view.wait_for_change().await?;
        }
    }

    /// Checks the window once. Returns its times when it has closed and all members are done.
    async fn check(&mut self) -> Result<Option<Captured>> {
        let (bracket, since) = (self.window, self.since);
        // Sampled before the window, so that the unit ran while the window was open.
        let up = self.first_running().await?;
        let target = self.view.state(&bracket.target.to_string()).await?;
        let window = self.view.state(&bracket.window.to_string()).await?;
        self.enforce_deadline().await?;
        if !self.is_open && window.reached_since(since) {
            // The jobs until now were those of the window itself.
            self.is_open = true;
            self.queued.clear();
        }
        if let Some(unit) = up.filter(|_| window.reached_since(since) && window.active.is_running())
        {
            return Err(self.started_within(&window, &unit).await);
        }
        if !target.reached_since(since) {
            return match target.has_job() {
                true => Ok(None),
                false => Err(self.diagnose(&window).await),
            };
        }
        let pause = self.view.state(&bracket.pause.to_string()).await?;
        if !window.is_settled() || !pause.is_settled() {
            return Ok(None);
        }
        if let Some(unit) = self.started_alone(&window).await? {
            return Err(self.started_within(&window, &unit).await);
        }
        if window.result != "success" {
            return Err(self.thawed_early(&window).await);
        }
        self.ensure_all_ran().await?;
        Ok(Some(Captured {
            since,
            frozen: self.frozen_since(&window)?,
            opened: window.active_enter,
            closed: window.inactive_enter,
            killed: std::mem::take(&mut self.stops.killed),
        }))
    }

    /// When users began to wait, if GitLab was held or frozen.
    fn frozen_since(&self, window: &UnitState) -> Result<Option<u64>> {
        Ok(match self.window.window {
            Unit::Hold => Some(HoldAccount::load(self.machine.root)?.since),
            _ if self.window.stopped.is_empty() => Some(window.inactive_exit),
            _ => None,
        })
    }

    /// Ends a window that has lasted too long. The timer of the deadline is for the case that the
    /// executor was killed; it is not exact, because each daemon-reload restarts it.
    async fn enforce_deadline(&mut self) -> Result<()> {
        let lasted = self.machine.clock.monotonic().saturating_sub(self.since);
        let is_over = Duration::from_micros(lasted) >= self.config.gitlab.max_downtime.duration();
        if let Some(deadline) = self.window.deadline.as_ref().filter(|_| is_over && !self.is_over) {
            self.is_over = true;
            self.view.start(&deadline.to_string(), Mode::Replace).await?;
        }
        Ok(())
    }

    /// Fails if a member did not run: a target does not fail if the condition of a member is not
    /// met.
    async fn ensure_all_ran(&mut self) -> Result<()> {
        for member in &self.window.members {
            let state = self.view.state(&member.to_string()).await?;
            if !state.started_since(self.since) {
                return Err(Failed::not_run(&state, "did not run in the window").into());
            }
        }
        Ok(())
    }

    /// The first running unit of those that are stopped alone.
    async fn first_running(&mut self) -> Result<Option<String>> {
        for unit in &self.window.alone {
            if self.view.state(unit).await?.active.is_running() {
                return Ok(Some(unit.clone()));
            }
        }
        Ok(None)
    }
}
