//! One stage: start its target, wait until every member is done, and read each result from the
//! member itself.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Result;
use tokio::time::sleep;

use crate::config::Stage;
use crate::run::Failed;
use crate::systemd::{Manager, UnitState, monotonic_micros};
use crate::units::{Plan, Unit};

/// Between two looks at what nobody tells of. States are looked at, also where a job's end is
/// waited for: a reload, a re-execution or a lost bus cannot lose a result.
pub(super) const PAUSE: Duration = Duration::from_millis(50);
/// How often a member is started that does not run.
const TRIES: u32 = 3;

/// Steps, and what is held for each until it is over.
pub(super) const HELD: [(Unit, Unit); 2] =
    [(Unit::Postgresql, Unit::PgSnapshot), (Unit::Files, Unit::FsSnapshot)];

/// Why a unit failed that was stopped along with what it is bound to, if that has failed.
async fn cause(manager: &Manager, state: &UnitState, since: u64) -> Result<Failed> {
    if let Some((_, to)) = HELD.iter().find(|(unit, _)| unit.to_string() == state.name) {
        let to = manager.state(&to.to_string()).await?;
        if to.active.is_down() && to.result != "success" {
            return Ok(Failed::of(&to, 0));
        }
    }
    Ok(Failed::of(state, since))
}

/// Starts `stage` and returns when all of `members` ended well (or, of those that stay up, are up).
/// `done` sees each member once, when it has ended well. Fails with the member that failed for
/// good: one that systemd is about to restart has not.
pub(super) async fn drive(
    manager: &Manager,
    stage: Stage,
    members: &[Unit],
    mut done: impl AsyncFnMut(&UnitState) -> Result<()>,
) -> Result<()> {
    let target = Unit::Stage(stage).to_string();
    hold(manager, members).await?;
    manager.hold(&target).await?;
    let mut jobs = manager.jobs().await?;
    let since = monotonic_micros();
    manager.start(&target, "replace").await?;
    let mut told = vec![false; members.len()];
    let mut tried: HashMap<String, u32> = HashMap::new();
    loop {
        let whole = manager.state(&target).await?;
        let pending = whole.has_job;
        let mut states = Vec::with_capacity(members.len());
        for (index, member) in members.iter().enumerate() {
            let state = manager.state(&member.to_string()).await?;
            if !told[index] && state.is_settled() && state.succeeded_since(since) {
                told[index] = true;
                done(&state).await?;
            }
            states.push(state);
        }
        let settled = states.iter().all(|state| state.is_settled());
        if !pending && settled {
            // The members are asked and not the target: it fails with the first attempt of a member
            // that then goes well.
            if states.iter().all(|state| state.succeeded_since(since)) {
                return Ok(());
            }
            // What others had started too often is not what went wrong.
            let failed = || {
                states
                    .iter()
                    .filter(|state| state.inactive_exit >= since && !state.succeeded_since(since))
            };
            if let Some(state) =
                failed().find(|state| state.result != "start-limit-hit").or_else(|| failed().next())
            {
                return Err(cause(manager, state, since).await?.into());
            }
            // A failure fails every dependant's job at once, also where systemd restarts the failed
            // unit and it then goes well (RestartMode=direct is newer than what we run on). What
            // has not run yet is started alone: with its requirements, systemd would run those that
            // are done a second time.
            let missing: Vec<&UnitState> =
                states.iter().filter(|state| state.inactive_exit < since).collect();
            // A condition may have been unmet long before this run: it counts from the first start
            // on.
            let never = |state: &&&UnitState| {
                tried
                    .get(&state.name)
                    .is_some_and(|tries| *tries >= TRIES || state.condition.is_some())
            };
            if let Some(state) = missing.iter().find(never) {
                return Err(Failed::of(state, since).into());
            }
            for state in missing {
                tracing::info!(
                    unit = state.name,
                    "starting what an earlier failed attempt had cancelled"
                );
                *tried.entry(state.name.clone()).or_default() += 1;
                manager.start(&state.name, "ignore-requirements").await?;
            }
        }
        jobs.another().await;
    }
}

/// Keeps the members' results readable and forgets earlier attempts.
pub(super) async fn hold(manager: &Manager, members: &[Unit]) -> Result<()> {
    for member in members {
        manager.hold(&member.to_string()).await?;
    }
    Ok(())
}

/// Starts one unit and waits for its end.
pub(super) async fn one(manager: &Manager, unit: &Unit) -> Result<()> {
    hold(manager, std::slice::from_ref(unit)).await?;
    let since = monotonic_micros();
    manager.start(&unit.to_string(), "replace").await?;
    settled(manager, unit, since).await
}

/// What runs behind systemd's back is asked right before it counts: hours may have gone by since it
/// was first.
pub(super) async fn proxies(manager: &Manager, plan: &Plan<'_>) -> Result<()> {
    match plan.proxies() {
        Some(unit) => one(manager, &unit).await,
        None => Ok(()),
    }
}

/// Waits for one unit's end and fails if it did not end well.
pub(super) async fn settled(manager: &Manager, unit: &Unit, since: u64) -> Result<()> {
    let mut jobs = manager.jobs().await?;
    loop {
        let state = manager.state(&unit.to_string()).await?;
        if state.is_settled() {
            return if state.succeeded_since(since) {
                Ok(())
            } else {
                Err(Failed::of(&state, since).into())
            };
        }
        jobs.another().await;
    }
}

/// Waits until a bracket's start is over, also what it does after it has told that it is ready.
pub(super) async fn up(manager: &Manager, unit: &Unit) -> Result<()> {
    loop {
        let state = manager.state(&unit.to_string()).await?;
        if state.sub == "exited" {
            return Ok(());
        }
        if state.active.is_down() && !state.has_job {
            return Err(Failed::of(&state, 0).into());
        }
        sleep(PAUSE).await;
    }
}
