//! What goes down together, and what would come up with it.

use std::collections::{BTreeSet, VecDeque};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::{Manager, UnitState};

/// The dependency lists that are read from a unit.
pub(super) const LISTS: [&str; 9] =
    ["RequiredBy", "BoundBy", "ConsistsOf", "RequisiteOf", "Requires", "Wants", "BindsTo", "Upholds", "After"];
/// Stopping a unit stops what stands in these, systemd.unit(5).
const STOPPED_ALONG: [&str; 4] = ["RequiredBy", "BoundBy", "ConsistsOf", "RequisiteOf"];
/// Starting a unit starts what stands in these.
const STARTED_ALONG: [&str; 4] = ["Requires", "Wants", "BindsTo", "Upholds"];

/// A unit that was running before the window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paused {
    /// The unit.
    pub unit: String,
    /// What its start would pull in although it was down: then it must be started without its requirements.
    pub left_down: Vec<String>,
}

/// The running ones of `units` and of everything that systemd stops along with them, each after those it is ordered after.
pub async fn stop_closure(manager: &Manager, units: &[String]) -> Result<Vec<Paused>> {
    let mut seen: BTreeSet<String> = units.iter().cloned().collect();
    let mut queue: VecDeque<String> = units.iter().cloned().collect();
    let mut running: Vec<UnitState> = Vec::new();
    while let Some(unit) = queue.pop_front() {
        let state = manager.state(&unit).await?;
        for name in STOPPED_ALONG.iter().flat_map(|list| state.list(list)) {
            if seen.insert(name.clone()) {
                queue.push_back(name.clone());
            }
        }
        if state.active.is_running() {
            running.push(state);
        }
    }
    let names: BTreeSet<String> = running.iter().map(|state| state.name.clone()).collect();
    let mut paused = Vec::new();
    for state in in_order(running) {
        let left_down = down_below(manager, &state, &names).await?;
        paused.push(Paused { unit: state.name, left_down });
    }
    Ok(paused)
}

impl UnitState {
    fn list(&self, key: &str) -> &[String] {
        self.lists.get(key).map_or(&[], Vec::as_slice)
    }
}

/// Everything that a start of `state` would pull in and that is down now.
async fn down_below(manager: &Manager, state: &UnitState, running: &BTreeSet<String>) -> Result<Vec<String>> {
    let mut down = BTreeSet::new();
    let mut seen = BTreeSet::from([state.name.clone()]);
    let below = |state: &UnitState| STARTED_ALONG.iter().flat_map(|list| state.list(list)).cloned().collect::<Vec<_>>();
    let mut queue: VecDeque<String> = below(state).into();
    while let Some(unit) = queue.pop_front() {
        if !seen.insert(unit.clone()) || running.contains(&unit) {
            continue;
        }
        let state = manager.state(&unit).await?;
        // What is up needs nothing; what does not exist cannot be started.
        if state.load == "loaded" && state.active.is_down() {
            queue.extend(below(&state));
            down.insert(unit);
        }
    }
    Ok(down.into_iter().collect())
}

/// Sorts so that every unit follows those it is `After=`; what is left of a cycle keeps its place at the end.
fn in_order(mut units: Vec<UnitState>) -> Vec<UnitState> {
    let mut sorted: Vec<UnitState> = Vec::with_capacity(units.len());
    while !units.is_empty() {
        let free = units.iter().position(|unit| !unit.list("After").iter().any(|name| units.iter().any(|other| other.name == *name)));
        sorted.push(units.remove(free.unwrap_or(0)));
    }
    sorted
}
