//! Runs one stage: starts its target, waits for every member, and reads each result from the member
//! itself.

use std::collections::HashMap;

use anyhow::Result;

use crate::machine::Machine;
use crate::run::Failed;
use crate::systemd::{ActiveState, Mode, ServiceManager, UnitState, UnitView};
use crate::units::{Plan, Unit};

/// How often a member is started again that has not run.
const TRIES: u32 = 3;

/// Steps, and the bracket that each of them needs until it has ended.
pub(super) const HELD: [(Unit, Unit); 2] =
    [(Unit::Postgresql, Unit::PgSnapshot), (Unit::Files, Unit::FsSnapshot)];

/// Starts the target of a stage and returns when all `members` have succeeded (or, if they keep
/// running, are up).
/// `held` has pairs of a member and a bracket, which is stopped when the member has succeeded.
/// Fails with the member that failed, unless systemd is about to restart it.
pub(super) async fn run_stage(
    machine: Machine<'_>,
    target: &Unit,
    members: &[Unit],
    held: &[(Unit, Unit)],
) -> Result<()> {
    let manager = machine.manager;
    prepare(manager, members).await?;
    prepare(manager, std::slice::from_ref(target)).await?;
    let mut running = Running {
        view: UnitView::new(manager).await?,
        target: target.to_string(),
        members: members.iter().map(ToString::to_string).collect(),
        held: held.iter().map(|(step, held)| (step.to_string(), held.to_string())).collect(),
        since: machine.clock.monotonic(),
        tried: HashMap::new(),
    };
    running.view.start(&target.to_string(), Mode::Replace).await?;
    while !running.is_done().await? {
        running.view.wait_for_change().await?;
    }
    Ok(())
}

/// A stage in progress.
struct Running<'a> {
    view: UnitView<'a>,
    target: String,
    members: Vec<String>,
    /// Members that have not succeeded yet, and their brackets.
    held: Vec<(String, String)>,
    since: u64,
    /// How often each member was started alone.
    tried: HashMap<String, u32>,
}

impl Running<'_> {
    /// Checks the members once. Returns whether all have succeeded.
    async fn is_done(&mut self) -> Result<bool> {
        let pending = self.view.state(&self.target).await?.has_job();
        let mut states = Vec::with_capacity(self.members.len());
        for member in &self.members {
            states.push(self.view.state(member).await?);
        }
        self.release_brackets(&states).await?;
        if pending || !states.iter().all(UnitState::is_settled) {
            return Ok(false);
        }
        // Not the state of the target: it fails with the first attempt of a member, although a
        // retry succeeds.
        if states.iter().all(|state| state.succeeded_since(self.since)) {
            return Ok(true);
        }
        if let Some(failed) = self.failed_member(&states) {
            return Err(find_cause(self.view.manager(), failed, self.since).await?.into());
        }
        self.start_missing(&states).await.map(|()| false)
    }

    /// Stops the brackets of members that have succeeded.
    async fn release_brackets(&mut self, states: &[UnitState]) -> Result<()> {
        let done = |step: &str| {
            states.iter().any(|state| {
                state.name == step && state.is_settled() && state.succeeded_since(self.since)
            })
        };
        let (over, held) = self.held.drain(..).partition(|(step, _)| done(step));
        self.held = held;
        for (_, bracket) in over {
            self.view.stop(&bracket).await?;
        }
        Ok(())
    }

    /// The member that failed. One that only hit its start limit was pulled in by the real failure.
    fn failed_member<'a>(&self, states: &'a [UnitState]) -> Option<&'a UnitState> {
        let failed = || {
            states.iter().filter(|state| {
                state.started_since(self.since) && !state.succeeded_since(self.since)
            })
        };
        failed().find(|state| state.result != "start-limit-hit").or_else(|| failed().next())
    }

    /// Starts the members that have not run. A failure of one unit fails the jobs of its dependents
    /// at once, even if systemd restarts the unit and it then succeeds (RestartMode=direct would
    /// prevent that, but is too new). They are started without their requirements: systemd would
    /// run those that have ended a second time.
    async fn start_missing(&mut self, states: &[UnitState]) -> Result<()> {
        let missing: Vec<&UnitState> =
            states.iter().filter(|state| !state.started_since(self.since)).collect();
        // The unmet condition of a member may be older than this run. It counts after one start
        // here.
        let gave_up = |state: &&&UnitState| {
            self.tried
                .get(&state.name)
                .is_some_and(|tries| *tries >= TRIES || state.condition.is_some())
        };
        if let Some(state) = missing.iter().find(gave_up) {
            return Err(Failed::of(state, self.since).into());
        }
        for state in missing {
            tracing::info!(
                unit = state.name,
                "starting what an earlier failed attempt had cancelled"
            );
            *self.tried.entry(state.name.clone()).or_default() += 1;
            self.view.start(&state.name, Mode::IgnoreRequirements).await?;
        }
        Ok(())
    }
}

/// The failure of a step, or that of its bracket, which has stopped the step.
async fn find_cause(manager: &dyn ServiceManager, state: &UnitState, since: u64) -> Result<Failed> {
    if let Some((_, to)) = HELD.iter().find(|(unit, _)| unit.to_string() == state.name) {
        let to = manager.state(&to.to_string()).await?;
        if to.active.is_down() && to.result != "success" {
            return Ok(Failed::of(&to, 0));
        }
    }
    Ok(Failed::of(state, since))
}

/// Resets earlier failures of `units`, and keeps them loaded so that their results can be read.
pub(super) async fn prepare(manager: &dyn ServiceManager, units: &[Unit]) -> Result<()> {
    for unit in units {
        let unit = unit.to_string();
        manager.keep(&unit).await?;
        manager.reset_failed(&unit).await?;
    }
    Ok(())
}

/// Starts one unit, waits until it has ended, and fails unless it has succeeded.
pub(super) async fn run_unit(machine: Machine<'_>, unit: &Unit) -> Result<()> {
    prepare(machine.manager, std::slice::from_ref(unit)).await?;
    let since = machine.clock.monotonic();
    let mut view = UnitView::new(machine.manager).await?;
    view.start(&unit.to_string(), Mode::Replace).await?;
    check_success(view.wait_until_settled(&unit.to_string()).await?, since)
}

/// Adopts the services behind proxies again, right before the window: the first time was hours ago.
pub(super) async fn adopt_proxies(machine: Machine<'_>, plan: &Plan<'_>) -> Result<()> {
    match plan.needed(Unit::Proxies) {
        Some(unit) => run_unit(machine, &unit).await,
        None => Ok(()),
    }
}

/// Waits until a unit has ended, and fails unless it has succeeded.
pub(super) async fn ensure_succeeded(
    manager: &dyn ServiceManager,
    unit: &Unit,
    since: u64,
) -> Result<()> {
    check_success(UnitView::new(manager).await?.wait_until_settled(&unit.to_string()).await?, since)
}

fn check_success(state: UnitState, since: u64) -> Result<()> {
    if state.succeeded_since(since) { Ok(()) } else { Err(Failed::of(&state, since).into()) }
}

/// Starts a bracket, and waits until it is up.
pub(super) async fn start_bracket(manager: &dyn ServiceManager, unit: &Unit) -> Result<()> {
    let name = unit.to_string();
    let mut view = UnitView::new(manager).await?;
    // One that is still ending from an earlier window.
    while view.state(&name).await?.active == ActiveState::Deactivating {
        view.wait_for_change().await?;
    }
    view.start(&name, Mode::Replace).await?;
    loop {
        let state = view.state(&name).await?;
        if state.active == ActiveState::Active {
            return Ok(());
        }
        if state.is_settled() {
            return Err(Failed::of(&state, 0).into());
        }
        view.wait_for_change().await?;
    }
}

/// Waits until a bracket is up and its main process has exited: it continues to work after it has
/// notified systemd that it is ready.
pub(super) async fn wait_until_up(manager: &dyn ServiceManager, unit: &Unit) -> Result<()> {
    let mut view = UnitView::new(manager).await?;
    loop {
        let state = view.state(&unit.to_string()).await?;
        if state.sub == "exited" {
            return Ok(());
        }
        if state.is_settled() {
            return Err(Failed::of(&state, 0).into());
        }
        view.wait_for_change().await?;
    }
}
