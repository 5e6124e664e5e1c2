//! The window: record what runs, have it stopped, captured and started again.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

use crate::config::{Config, Proxy};
use crate::paths;
use crate::runs::{Downtime, Record, paused};
use crate::systemd::{
    ActiveState, JobEvent, Jobs, Manager, Paused, UnitState, monotonic_micros, notify, origin,
    running, start_later, stop_closure, stopped_along,
};
use crate::units::Unit;

use super::stage::{PAUSE, hold};
use super::stops::{self, Stops};
use crate::run::Failed;

/// How long the run waits for GitLab before it goes on without it; resume itself never gives up.
const RESUME_PATIENCE: Duration = Duration::from_secs(300);
/// When resume is asked for again, should the bracket's end not have done it.
const RESUME_NUDGE: Duration = Duration::from_secs(3);

/// Between two looks at units that are being started, with GitLab up.
const SETTLE_PAUSE: Duration = Duration::from_millis(200);

/// The moments of a window, microseconds of CLOCK_MONOTONIC.
#[derive(Debug, Clone, Copy)]
pub(super) struct Captured {
    /// The first stop was asked for.
    pub since: u64,
    /// Nothing was stopped, but frozen by the window's start, which began then, and let go by its
    /// end.
    frozen: Option<u64>,
    opened: u64,
    closed: u64,
}

/// A window: what happens in it, and what is down meanwhile.
pub(super) struct Window {
    /// Reached when everything in it is done.
    pub target: Unit,
    /// The bracket in which GitLab is down.
    pub window: Unit,
    /// The bracket that brings it back.
    pub pause: Unit,
    /// What ends it when it lasts too long.
    pub deadline: Option<Unit>,
    /// What happens in it.
    pub members: Vec<Unit>,
    /// What is stopped.
    pub stopped: Vec<String>,
    /// Those of them that are stopped without what hangs on them. No `Conflicts=` guards the window
    /// against their start: it is watched here.
    pub alone: Vec<String>,
    /// What its members stop and start themselves; what hangs on these goes down and comes back
    /// with the rest.
    pub driven: Vec<String>,
    /// What is down already and is to be started with the rest.
    pub paused: Vec<Paused>,
    /// What is frozen and not stopped.
    pub frozen: Vec<String>,
    /// GitLab is to answer afterwards, also where it did not before.
    pub must_answer: bool,
}

/// Opens the window, waits until everything in it is done and it has closed again.
pub(super) async fn capture(
    config: &Config,
    manager: &Manager,
    bracket: &Window,
) -> Result<Captured> {
    let Window { target, members, .. } = bracket;
    hold(manager, members).await?;
    hold(manager, &[target.clone(), bracket.window.clone(), bracket.pause.clone()]).await?;
    hold(manager, bracket.deadline.as_slice()).await?;
    if bracket.deadline.is_some() {
        // A window that failed to open leaves its timer running, PartOf= follows stops alone: this
        // one would be cut short by it.
        let timer = Unit::DeadlineTimer.to_string();
        manager.stop(&timer).await?;
        while !manager.state(&timer).await?.is_settled() {
            sleep(PAUSE).await;
        }
    }
    let jobs = manager.jobs().await?;
    let (states, waited) = settle(config, manager, bracket).await?;
    let closure: Vec<String> = states.iter().map(|state| state.name.clone()).collect();
    let mut running = running(manager, &states).await?;
    running.retain(|paused| !bracket.driven.contains(&paused.unit));
    tracing::info!(units = ?running.iter().map(|paused| &paused.unit).collect::<Vec<_>>(), "GitLab's running units");
    let known: Vec<String> = running.iter().map(|paused| paused.unit.clone()).collect();
    running.extend(bracket.paused.iter().filter(|paused| !known.contains(&paused.unit)).cloned());
    if bracket.must_answer || waited {
        // One that was starting will answer, whatever it did as the run began.
        let ran: Vec<String> = running.iter().map(|paused| paused.unit.clone()).collect();
        paused::answered(true, &ran)?;
    }
    paused::save(&running)?;
    let opened = open(config, manager, bracket, (jobs, closure, running)).await;
    if opened.is_err()
        && !manager
            .state(&bracket.pause.to_string())
            .await
            .is_ok_and(|pause| pause.active.is_running() || pause.has_job)
    {
        // Whatever became of the window, nothing stays on the record: what runs is taken off it at
        // once.
        start_later(&Unit::Resume.to_string()).await?;
    }
    opened
}

/// Waits until nothing of what is going to be stopped is being started or stopped: a start that is
/// queued would be cancelled, and nobody knows of it afterwards. Returns all that is going to be
/// stopped, and whether anything was waited for.
async fn settle(
    config: &Config,
    manager: &Manager,
    bracket: &Window,
) -> Result<(Vec<UnitState>, bool)> {
    let started = Instant::now();
    let units = [&bracket.stopped[..], &bracket.driven].concat();
    let mut waited = false;
    loop {
        let states = stop_closure(manager, &units, &bracket.alone).await?;
        let frozen = bracket.frozen.iter().map(|unit| manager.state(unit));
        let others = join_all(frozen).await.into_iter().collect::<Result<Vec<_>>>()?;
        let Some(busy) = states.iter().chain(&others).find(|state| state.has_job) else {
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
        sleep(SETTLE_PAUSE).await;
    }
}

async fn open(
    config: &Config,
    manager: &Manager,
    bracket: &Window,
    (jobs, closure, running): (Jobs, Vec<String>, Vec<Paused>),
) -> Result<Captured> {
    let target = bracket.target.to_string();
    let since = monotonic_micros();
    let anchor = manager.start_job(&target, "replace").await?;
    let driven = stop_closure(manager, &bracket.driven, &[])
        .await?
        .into_iter()
        .map(|state| state.name)
        .collect();
    let mut watch = Watch {
        jobs,
        anchor,
        closure,
        driven,
        running,
        stops: Stops::default(),
        is_over: false,
        is_open: false,
        queued: Vec::new(),
    };
    let captured = watched(config, manager, bracket, since, &mut watch).await;
    stops::end(manager).await?;
    captured
}

/// Watches the window from its start to its end.
async fn watched(
    config: &Config,
    manager: &Manager,
    bracket: &Window,
    since: u64,
    watch: &mut Watch,
) -> Result<Captured> {
    let target = bracket.target.to_string();
    loop {
        watch.told(manager).await?;
        let up = first_running(manager, &bracket.alone).await?;
        let state = manager.state(&target).await?;
        let window = manager.state(&bracket.window.to_string()).await?;
        // Every daemon-reload has OnActiveSec= of the timer count anew. The timer is for an
        // executor that is gone.
        let is_over = Duration::from_micros(monotonic_micros().saturating_sub(since))
            >= config.gitlab.max_downtime.duration();
        if let Some(deadline) = bracket.deadline.as_ref().filter(|_| is_over && !watch.is_over) {
            watch.is_over = true;
            manager.start(&deadline.to_string(), "replace").await?;
        }
        if !watch.is_open && window.reached_since(since) {
            // What was queued until then are the window's own jobs, stops above all.
            watch.is_open = true;
            watch.queued.clear();
        }
        // Seen running first, and the window open after that.
        if let Some(unit) = up.filter(|_| window.reached_since(since) && window.active.is_running())
        {
            return Err(started_within(manager, watch, &window, &unit).await);
        }
        if state.reached_since(since) {
            if window.is_settled() && manager.state(&bracket.pause.to_string()).await?.is_settled()
            {
                if let Some(unit) = entered(manager, bracket, &window).await? {
                    return Err(started_within(manager, watch, &window, &unit).await);
                }
                if window.result != "success" {
                    return Err(not_held(manager, bracket, &window).await);
                }
                all_ran(manager, &bracket.members, since).await?;
                let frozen = bracket.stopped.is_empty().then_some(window.inactive_exit);
                return Ok(Captured {
                    since,
                    frozen,
                    opened: window.active_enter,
                    closed: window.inactive_enter,
                });
            }
        } else if !state.has_job {
            return Err(why(config, manager, bracket, watch, &window, since).await);
        }
        watch.jobs.wait().await;
    }
}

/// Fails with a member that did not run, and why: to its target, a condition that is not met is no
/// failure.
async fn all_ran(manager: &Manager, members: &[Unit], since: u64) -> Result<()> {
    for member in members {
        let state = manager.state(&member.to_string()).await?;
        if state.inactive_exit < since {
            return Err(Failed::idle(&state, "did not run in the window").into());
        }
    }
    Ok(())
}

/// The first of `units` that runs.
async fn first_running(manager: &Manager, units: &[String]) -> Result<Option<String>> {
    for unit in units {
        if manager.state(unit).await?.active.is_running() {
            return Ok(Some(unit.clone()));
        }
    }
    Ok(None)
}

/// The first unit without a conflict that was started while the window was open, or is so now.
async fn entered(
    manager: &Manager,
    bracket: &Window,
    window: &UnitState,
) -> Result<Option<String>> {
    let end =
        if window.inactive_enter < window.active_enter { u64::MAX } else { window.inactive_enter };
    for unit in &bracket.alone {
        if (window.active_enter..end).contains(&manager.state(unit).await?.inactive_exit) {
            return Ok(Some(unit.clone()));
        }
    }
    Ok(None)
}

async fn started_within(
    manager: &Manager,
    watch: &mut Watch,
    window: &UnitState,
    unit: &str,
) -> anyhow::Error {
    // What was told meanwhile has the start itself.
    let _ = watch.told(manager).await;
    let origin = origin(manager, unit, &watch.queued).await;
    Failed::new(window, format!("{unit} was started{origin} in the window, which closed it")).into()
}

/// What was not frozen to the window's end, which the window itself has noticed.
async fn not_held(manager: &Manager, bracket: &Window, window: &UnitState) -> anyhow::Error {
    for unit in &bracket.frozen {
        if let Ok(state) = manager.state(unit).await
            && (state.inactive_exit.max(state.inactive_enter) >= window.inactive_exit
                || state.active == ActiveState::Deactivating)
        {
            let reason = "was started, or ended while it was frozen, in the window: what was captured is not of one moment";
            return Failed::new(&state, reason).into();
        }
    }
    Failed::new(window, "GitLab was not frozen to its end: what was captured is not of one moment")
        .into()
}

/// Why the window was for nothing, as precisely as the units can tell.
async fn why(
    config: &Config,
    manager: &Manager,
    bracket: &Window,
    watch: &mut Watch,
    window: &UnitState,
    since: u64,
) -> anyhow::Error {
    let mut find = async || -> Result<Failed> {
        if let Some(deadline) = &bracket.deadline {
            let deadline = manager.state(&deadline.to_string()).await?;
            if deadline.reached_since(since) {
                let reason = format!(
                    "GitLab was down for {}, the longest that [gitlab] max-downtime allows",
                    config.gitlab.max_downtime
                );
                return Ok(Failed::new(&deadline, reason));
            }
        }
        // What is stopped with the window fails by that, and is not why.
        if window.reached_since(since)
            && let Some(unit) = entered(manager, bracket, window).await?
        {
            return Err(started_within(manager, watch, window, &unit).await);
        }
        if let Some(unit) = watch.meant_to_start(config, manager).await? {
            return Err(started_within(manager, watch, window, &unit).await);
        }
        for member in &bracket.members {
            let state = manager.state(&member.to_string()).await?;
            if state.inactive_exit >= since
                && (state.active == ActiveState::Failed || state.result != "success")
            {
                return Ok(Failed::new(&state, format!("failed in the window: {}", state.result)));
            }
        }
        for unit in config.gitlab.writing_proxies().map(Proxy::unit) {
            let state = manager.state(unit.as_str()).await?;
            if state.active == ActiveState::Failed && state.inactive_enter >= since {
                return Ok(Failed::new(&state, "the service could not be stopped"));
            }
        }
        for writer in &config.gitlab.writers {
            let state = manager.state(writer.as_str()).await?;
            if state.inactive_exit >= since && window.reached_since(since) {
                return Err(started_within(manager, watch, window, writer.as_str()).await);
            }
        }
        Ok(Failed::new(
            window,
            format!("could not be opened or was closed too early: {}", window.result),
        ))
    };
    match find().await {
        Ok(failed) => failed.into(),
        Err(error) => error.context("the capture failed"),
    }
}

/// Waits until resume has done its work; `None` if that takes so long that the run had better go
/// on.
pub(super) async fn answering_again(
    config: &Config,
    manager: &Manager,
    captured: Captured,
    record: &mut Record,
) -> Result<Option<Downtime>> {
    if let Err(error) = resume(manager, config).await {
        tracing::warn!("{error:#}: the backup goes on");
        record.warnings.push(format!("{error:#}"));
        record.downtime_longer_than = Some(
            Duration::from_micros(monotonic_micros().saturating_sub(captured.since)).as_secs_f64(),
        );
        return Ok(None);
    }
    let seconds = |from: u64, to: u64| Duration::from_micros(to.saturating_sub(from)).as_secs_f64();
    if let Some(opening) = captured.frozen {
        let (stop, capture) =
            (seconds(opening, captured.opened), seconds(captured.opened, captured.closed));
        return Ok(Some(Downtime { stop, capture, start: 0.0 }));
    }
    Ok(Some(Downtime {
        stop: seconds(captured.since, captured.opened),
        capture: seconds(captured.opened, captured.closed),
        start: seconds(captured.closed, monotonic_micros()),
    }))
}

/// Waits until no unit is on the record of paused ones; asks for resume where nobody else did.
pub(super) async fn resume(manager: &Manager, config: &Config) -> Result<()> {
    let started = Instant::now();
    let mut nudge =
        started + if Path::new(paths::PAUSED).exists() { Duration::ZERO } else { RESUME_NUDGE };
    while Path::new(paths::PAUSED).exists() {
        let unit = Unit::Resume.to_string();
        if Instant::now() >= nudge && manager.state(&unit).await?.is_settled() {
            manager.start(&unit, "replace").await?;
            nudge = Instant::now() + RESUME_NUDGE;
        }
        if started.elapsed() > RESUME_PATIENCE {
            let status = manager.state(&unit).await?.status_text;
            let readiness = if config.gitlab.readiness.is_some() { " and answers" } else { "" };
            bail!(
                "GitLab is not up{readiness} after {RESUME_PATIENCE:?} ({status}); {unit} goes on trying"
            );
        }
        sleep(PAUSE).await;
    }
    Ok(())
}

/// Notices what others have systemd do with GitLab's units meanwhile.
struct Watch {
    jobs: Jobs,
    /// The number of the target's own job: what has a lower one was queued before the window, what
    /// was queued with it follows.
    anchor: u32,
    /// All that the window stops.
    closure: Vec<String>,
    /// What the window's own members stop, and what goes down along with it: not everybody who
    /// stops that is an admin.
    driven: Vec<String>,
    running: Vec<Paused>,
    stops: Stops,
    /// It has lasted too long, and was told to end.
    is_over: bool,
    /// The window has been open.
    is_open: bool,
    /// The jobs that were queued since, by number and unit.
    queued: Vec<(u32, String)>,
}

impl Watch {
    /// The first writer for which somebody had a job queued while the window was open, and not
    /// resume after it, and that runs or is about to.
    async fn meant_to_start(
        &mut self,
        config: &Config,
        manager: &Manager,
    ) -> Result<Option<String>> {
        self.told(manager).await?;
        let resume = Unit::Resume.to_string();
        let before =
            self.queued.iter().take_while(|(_, unit)| *unit != resume).map(|(_, unit)| unit);
        for unit in before.filter(|unit| {
            config.gitlab.writers.iter().any(|writer| writer.as_str() == unit.as_str())
        }) {
            let state = manager.state(unit).await?;
            if state.has_job || !state.active.is_down() {
                return Ok(Some(unit.clone()));
            }
        }
        Ok(None)
    }

    async fn told(&mut self, manager: &Manager) -> Result<()> {
        while let Some(event) = self.jobs.take() {
            let (id, unit, result) = match event {
                JobEvent::New { id, unit } => {
                    if id > self.anchor {
                        self.queued.push((id, unit));
                    }
                    continue;
                }
                JobEvent::Removed { id, unit, result } => (id, unit, result),
            };
            // It came between the last look and the window, which cancelled it: what was to run
            // runs afterwards.
            let unknown = self.closure.contains(&unit)
                && !self.running.iter().any(|paused| paused.unit == unit);
            if id < self.anchor && result == "canceled" && unknown {
                tracing::info!(
                    unit,
                    "was being started when the window began: it is started afterwards"
                );
                self.running.push(Paused { unit, left_down: Vec::new() });
                paused::save(&self.running)?;
            }
        }
        self.admin_stops(manager).await
    }

    /// What an admin stops while it is down anyway stays down.
    async fn admin_stops(&mut self, manager: &Manager) -> Result<()> {
        let watched: Vec<Paused> = self
            .running
            .iter()
            .filter(|paused| !self.driven.contains(&paused.unit))
            .cloned()
            .collect();
        for unit in self.stops.look(manager, &watched).await? {
            // Its own start has it back: whoever restarts it does not stop it.
            if !manager.state(&unit).await?.is_settled() {
                continue;
            }
            tracing::info!(unit, "stopped by an admin in the window: it stays down");
            for stopped in stopped_along(manager, &unit).await? {
                paused::leave_down(&mut self.running, &stopped);
            }
            paused::save(&self.running).context("cannot take a stopped unit off the record")?;
        }
        Ok(())
    }
}
