//! The window: record what runs, have it stopped, captured and started again.

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
use crate::runs::paused;
use crate::systemd::{Mode, Paused, UnitState, UnitView, notify, running, stop_closure};
use crate::units::Unit;

/// The moments of a window, microseconds of CLOCK_MONOTONIC.
#[derive(Debug, Clone, Copy)]
pub(super) struct Captured {
    /// The first stop was asked for.
    pub since: u64,
    /// Nothing was stopped, but frozen by the window's start, which began then, and let go by its
    /// end.
    pub frozen: Option<u64>,
    /// Everything was down, or frozen.
    pub opened: u64,
    /// Its end.
    pub closed: u64,
}

/// Opens the window, waits until everything in it is done and it has closed again.
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
        // A window that failed to open leaves its timer running, PartOf= follows stops alone: this
        // one would be cut short by it.
        let timer = Unit::DeadlineTimer.to_string();
        let mut view = UnitView::new(manager).await?;
        view.stop(&timer).await?;
        view.settled(&timer).await?;
    }
    let view = UnitView::with_jobs(manager).await?;
    let (states, waited) = settle(config, machine, window).await?;
    let closure: Vec<String> = states.iter().map(|state| state.name.clone()).collect();
    let mut running = running(manager, &states).await?;
    running.retain(|paused| !window.driven.contains(&paused.unit));
    tracing::info!(units = ?names(&running), "GitLab's running units");
    let known = names(&running);
    running.extend(window.paused.iter().filter(|paused| !known.contains(&paused.unit)).cloned());
    if window.must_answer || waited {
        // One that was starting will answer, whatever it did as the run began.
        paused::answered(root, true, &names(&running))?;
    }
    paused::save(root, &running)?;
    let opened = open(config, machine, window, view, closure, running).await;
    if opened.is_err()
        && !manager
            .state(&window.pause.to_string())
            .await
            .is_ok_and(|pause| pause.active.is_running() || pause.has_job())
    {
        // Whatever became of the window, nothing stays on the record: what runs is taken off it at
        // once.
        manager.start_later(&Unit::Resume.to_string()).await?;
    }
    opened
}

fn names(units: &[Paused]) -> Vec<String> {
    units.iter().map(|paused| paused.unit.clone()).collect()
}

/// Waits until nothing of what is going to be stopped is being started or stopped: a start that is
/// queued would be cancelled, and nobody knows of it afterwards. Returns all that is going to be
/// stopped, and whether anything was waited for.
async fn settle(
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
                "is being started or stopped, and was for {} ([gitlab] settle): GitLab was not touched; 'systemctl list-jobs' tells what it waits for",
                config.gitlab.settle
            );
            return Err(Failed::new(busy, reason).into());
        }
        notify::status(&format!("waiting for {}, which is being started or stopped", busy.name));
        waited = true;
        for state in states.iter().chain(&others) {
            view.name(std::slice::from_ref(&state.name));
        }
        // What happens to other units is nothing to look for.
        view.changed().await?;
    }
}

async fn open(
    config: &Config,
    machine: Machine<'_>,
    window: &Window,
    mut view: UnitView<'_>,
    closure: Vec<String>,
    running: Vec<Paused>,
) -> Result<Captured> {
    let manager = machine.manager;
    let since = machine.clock.monotonic();
    let anchor = view.start(&window.target.to_string(), Mode::Replace).await?;
    let driven = stop_closure(manager, &window.driven, &[])
        .await?
        .into_iter()
        .map(|state| state.name)
        .collect();
    view.name(&closure);
    let mut watch =
        Watch::new(config, machine, window, view, since, anchor, closure, driven, running);
    let captured = watch.until_its_end().await;
    stops::end(manager).await?;
    captured
}

impl Watch<'_> {
    /// Watches the window from its start to its end.
    async fn until_its_end(&mut self) -> Result<Captured> {
        loop {
            self.told().await?;
            if let Some(captured) = self.look().await? {
                return Ok(captured);
            }
            self.view.changed().await?;
        }
    }

    /// One look: the window's moments when it is over and everything in it is done.
    async fn look(&mut self) -> Result<Option<Captured>> {
        let (bracket, since) = (self.window, self.since);
        let up = self.first_running().await?;
        let target = self.view.state(&bracket.target.to_string()).await?;
        let window = self.view.state(&bracket.window.to_string()).await?;
        self.keep_the_deadline().await?;
        if !self.is_open && window.reached_since(since) {
            // What was queued until then are the window's own jobs, stops above all.
            self.is_open = true;
            self.queued.clear();
        }
        // Seen running first, and the window open after that.
        if let Some(unit) = up.filter(|_| window.reached_since(since) && window.active.is_running())
        {
            return Err(self.started_within(&window, &unit).await);
        }
        if !target.reached_since(since) {
            return match target.has_job() {
                true => Ok(None),
                false => Err(self.why(&window).await),
            };
        }
        let pause = self.view.state(&bracket.pause.to_string()).await?;
        if !window.is_settled() || !pause.is_settled() {
            return Ok(None);
        }
        if let Some(unit) = self.entered(&window).await? {
            return Err(self.started_within(&window, &unit).await);
        }
        if window.result != "success" {
            return Err(self.not_held(&window).await);
        }
        self.all_ran().await?;
        Ok(Some(Captured {
            since,
            frozen: bracket.stopped.is_empty().then_some(window.inactive_exit),
            opened: window.active_enter,
            closed: window.inactive_enter,
        }))
    }

    /// Every daemon-reload has OnActiveSec= of the timer count anew. The timer is for an executor
    /// that is gone.
    async fn keep_the_deadline(&mut self) -> Result<()> {
        let lasted = self.machine.clock.monotonic().saturating_sub(self.since);
        let is_over = Duration::from_micros(lasted) >= self.config.gitlab.max_downtime.duration();
        if let Some(deadline) = self.window.deadline.as_ref().filter(|_| is_over && !self.is_over) {
            self.is_over = true;
            self.view.start(&deadline.to_string(), Mode::Replace).await?;
        }
        Ok(())
    }

    /// Fails with a member that did not run, and why: to its target, a condition that is not met is
    /// no failure.
    async fn all_ran(&mut self) -> Result<()> {
        for member in &self.window.members {
            let state = self.view.state(&member.to_string()).await?;
            if state.inactive_exit < self.since {
                return Err(Failed::not_run(&state, "did not run in the window").into());
            }
        }
        Ok(())
    }

    /// The first of what is stopped alone that runs.
    async fn first_running(&mut self) -> Result<Option<String>> {
        for unit in &self.window.alone {
            if self.view.state(unit).await?.active.is_running() {
                return Ok(Some(unit.clone()));
            }
        }
        Ok(None)
    }
}
