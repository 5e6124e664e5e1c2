//! One stage: start its target, wait until every member is done, and read each result from the
//! member itself.

use std::collections::HashMap;

use anyhow::Result;

use crate::config::Stage;
use crate::machine::Machine;
use crate::run::Failed;
use crate::systemd::{Mode, ServiceManager, UnitState, UnitView};
use crate::units::{Plan, Unit};

/// How often a member is started that does not run.
const TRIES: u32 = 3;

/// Steps, and what is held for each until it is over.
pub(super) const HELD: [(Unit, Unit); 2] =
    [(Unit::Postgresql, Unit::PgSnapshot), (Unit::Files, Unit::FsSnapshot)];

/// Starts `stage` and returns when all of `members` ended well (or, of those that stay up, are up).
/// Each of `held` is a member and a bracket that ends when that has ended well. Fails with the
/// member that failed for good: one that systemd is about to restart has not.
pub(super) async fn drive(
    machine: Machine<'_>,
    stage: Stage,
    members: &[Unit],
    held: &[(Unit, Unit)],
) -> Result<()> {
    let manager = machine.manager;
    let target = Unit::Stage(stage);
    prepare(manager, members).await?;
    prepare(manager, std::slice::from_ref(&target)).await?;
    let mut driven = Driven {
        view: UnitView::new(manager).await?,
        target: target.to_string(),
        members: members.iter().map(ToString::to_string).collect(),
        held: held.iter().map(|(step, held)| (step.to_string(), held.to_string())).collect(),
        since: machine.clock.monotonic(),
        tried: HashMap::new(),
    };
    driven.view.start(&target.to_string(), Mode::Replace).await?;
    while !driven.is_done().await? {
        driven.view.changed().await?;
    }
    Ok(())
}

/// A stage that goes on.
struct Driven<'a> {
    view: UnitView<'a>,
    target: String,
    members: Vec<String>,
    /// Members that have not ended well yet, and what is held for them.
    held: Vec<(String, String)>,
    since: u64,
    /// How often each was started alone.
    tried: HashMap<String, u32>,
}

impl Driven<'_> {
    /// One look; whether all members ended well.
    async fn is_done(&mut self) -> Result<bool> {
        let pending = self.view.state(&self.target).await?.has_job();
        let mut states = Vec::with_capacity(self.members.len());
        for member in &self.members {
            states.push(self.view.state(member).await?);
        }
        self.give_back(&states).await?;
        if pending || !states.iter().all(UnitState::is_settled) {
            return Ok(false);
        }
        // The members are asked and not the target: it fails with the first attempt of a member
        // that then goes well.
        if states.iter().all(|state| state.succeeded_since(self.since)) {
            return Ok(true);
        }
        if let Some(failed) = self.failed(&states) {
            return Err(cause(self.view.manager(), failed, self.since).await?.into());
        }
        self.start_missing(&states).await.map(|()| false)
    }

    /// Ends what was held for members that are done.
    async fn give_back(&mut self, states: &[UnitState]) -> Result<()> {
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

    /// The member that failed. What others had started too often is not what went wrong.
    fn failed<'a>(&self, states: &'a [UnitState]) -> Option<&'a UnitState> {
        let failed = || {
            states.iter().filter(|state| {
                state.inactive_exit >= self.since && !state.succeeded_since(self.since)
            })
        };
        failed().find(|state| state.result != "start-limit-hit").or_else(|| failed().next())
    }

    /// A failure fails every dependant's job at once, also where systemd restarts the failed unit
    /// and it then goes well (RestartMode=direct is newer than what we run on). What has not run
    /// yet is started alone: with its requirements, systemd would run those that are done a second
    /// time.
    async fn start_missing(&mut self, states: &[UnitState]) -> Result<()> {
        let missing: Vec<&UnitState> =
            states.iter().filter(|state| state.inactive_exit < self.since).collect();
        // A condition may have been unmet long before this run: it counts from the first start on.
        let never = |state: &&&UnitState| {
            self.tried
                .get(&state.name)
                .is_some_and(|tries| *tries >= TRIES || state.condition.is_some())
        };
        if let Some(state) = missing.iter().find(never) {
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

/// Why a unit failed that was stopped along with what it is bound to, if that has failed.
async fn cause(manager: &dyn ServiceManager, state: &UnitState, since: u64) -> Result<Failed> {
    if let Some((_, to)) = HELD.iter().find(|(unit, _)| unit.to_string() == state.name) {
        let to = manager.state(&to.to_string()).await?;
        if to.active.is_down() && to.result != "success" {
            return Ok(Failed::of(&to, 0));
        }
    }
    Ok(Failed::of(state, since))
}

/// Keeps the results of `units` readable and forgets earlier attempts.
pub(super) async fn prepare(manager: &dyn ServiceManager, units: &[Unit]) -> Result<()> {
    for unit in units {
        let unit = unit.to_string();
        manager.keep(&unit).await?;
        manager.reset_failed(&unit).await?;
    }
    Ok(())
}

/// Starts one unit and waits for its end.
pub(super) async fn one(machine: Machine<'_>, unit: &Unit) -> Result<()> {
    prepare(machine.manager, std::slice::from_ref(unit)).await?;
    let since = machine.clock.monotonic();
    let mut view = UnitView::new(machine.manager).await?;
    view.start(&unit.to_string(), Mode::Replace).await?;
    well(view.settled(&unit.to_string()).await?, since)
}

/// What runs behind systemd's back is asked right before it counts: hours may have gone by since it
/// was first.
pub(super) async fn proxies(machine: Machine<'_>, plan: &Plan<'_>) -> Result<()> {
    match plan.needed(Unit::Proxies) {
        Some(unit) => one(machine, &unit).await,
        None => Ok(()),
    }
}

/// Waits for one unit's end and fails if it did not end well.
pub(super) async fn settled(manager: &dyn ServiceManager, unit: &Unit, since: u64) -> Result<()> {
    well(UnitView::new(manager).await?.settled(&unit.to_string()).await?, since)
}

fn well(state: UnitState, since: u64) -> Result<()> {
    if state.succeeded_since(since) { Ok(()) } else { Err(Failed::of(&state, since).into()) }
}

/// Waits until a bracket's start is over, also what it does after it has told that it is ready.
pub(super) async fn up(manager: &dyn ServiceManager, unit: &Unit) -> Result<()> {
    let mut view = UnitView::new(manager).await?;
    loop {
        let state = view.state(&unit.to_string()).await?;
        if state.sub == "exited" {
            return Ok(());
        }
        if state.is_settled() {
            return Err(Failed::of(&state, 0).into());
        }
        view.changed().await?;
    }
}
