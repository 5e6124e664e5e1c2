//! `quiesce = "freeze"`: the writers are frozen instead of stopped.
//!
//! The captured state is the one that a loss of power would have left. PostgreSQL, Redis and Git
//! each recover from that on their own. A push that was in progress may be in some of them and
//! missing in others.

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::config::{Config, Quiesce};
use crate::finding::Finding;
use crate::host::own;
use crate::machine::Machine;
use crate::paths::{self, RootDirectory};
use crate::runs::paused;
use crate::runs::record::{read_json, write_json};
use crate::systemd::{ActiveState, Paused, ServiceManager, UnitState, cgroup};
use crate::values::Timespan;

/// Warnings about the writers whose watchdog expires if they are frozen for `max-downtime`.
pub async fn findings<M: ServiceManager>(
    config: &Config,
    connect: impl AsyncFnOnce() -> Result<M>,
) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    if config.gitlab.quiesce == Quiesce::Freeze {
        let manager = connect().await?;
        let longest = config.gitlab.max_downtime.duration();
        for unit in &config.gitlab.writers {
            if let Some(watchdog) =
                manager.state(unit.as_str()).await?.watchdog.filter(|watchdog| *watchdog < longest)
            {
                let words = format!(
                    "{unit} has WatchdogSec={}: if it is frozen for longer, systemd kills and \
                     restarts it, and the run fails; set a shorter [gitlab] max-downtime",
                    Timespan::from(watchdog)
                );
                findings.push(Finding::warning("freeze", words));
            }
        }
    }
    Ok(findings)
}

/// A writer, as it was when the running ones were frozen.
#[derive(Debug, Serialize, Deserialize)]
struct Frozen {
    unit: String,
    /// The unit was running and was frozen; otherwise it was down.
    ran: bool,
    invocation: String,
    main_pid: u32,
}

impl Frozen {
    fn of(state: &UnitState) -> Self {
        Self {
            unit: state.name.clone(),
            ran: !state.active.is_down(),
            invocation: state.invocation.clone(),
            main_pid: state.main_pid,
        }
    }

    /// What happened to the unit, if it is not frozen, or down, as it was before.
    fn change(&self, root: &RootDirectory, now: &UnitState) -> Option<String> {
        let unit = &self.unit;
        if !self.ran {
            return (now.invocation != self.invocation || !now.active.is_down())
                .then(|| format!("{unit} was started in the window"));
        }
        if now.invocation != self.invocation || now.main_pid != self.main_pid {
            return Some(format!("{unit} was ended in the window"));
        }
        match now.active {
            ActiveState::Active | ActiveState::Reloading if is_frozen(root, now) => None,
            ActiveState::Deactivating if now.result == "watchdog" => Some(format!(
                "{unit} was frozen for longer than its WatchdogSec= allows, and systemd ends it"
            )),
            ActiveState::Deactivating => {
                Some(format!("a stop of {unit} was requested in the window"))
            }
            _ => Some(format!("{unit} was let go in the window")),
        }
    }
}

/// Freezes every running writer. Fails if one cannot be frozen; the end of the bracket thaws the
/// others.
pub(crate) async fn freeze(config: &Config, machine: Machine<'_>) -> Result<()> {
    let Machine { manager, root, .. } = machine;
    cgroup::ensure_freezes(root, "freeze")?;
    let mut all = Vec::new();
    for writer in &config.gitlab.writers {
        if !writer.has_processes() {
            continue;
        }
        let state = manager.state(writer.as_str()).await?;
        match state.active {
            // Frozen by an admin: it stays frozen after the window.
            ActiveState::Active if state.frozen && is_frozen(root, &state) => {
                tracing::info!(unit = state.name, "is frozen already")
            }
            ActiveState::Active
            | ActiveState::Reloading
            | ActiveState::Inactive
            | ActiveState::Failed => all.push(Frozen::of(&state)),
            ActiveState::Activating | ActiveState::Deactivating => {
                bail!("{writer} is starting or stopping: nothing is captured")
            }
        }
    }
    write_json(&root.at(paths::FROZEN_UNITS), &all)?;
    for frozen in all.iter().filter(|frozen| frozen.ran) {
        manager.freeze(&frozen.unit).await?;
    }
    for frozen in &all {
        if let Some(lost) = frozen.change(root, &manager.state(&frozen.unit).await?) {
            bail!("{lost}, or is not frozen: nothing is captured");
        }
    }
    Ok(())
}

/// Whether units were frozen and have not been thawed yet.
pub fn is_on_record(root: &RootDirectory) -> bool {
    root.at(paths::FROZEN_UNITS).exists()
}

/// Thaws the frozen units, and adds those that did not survive to the units that resume starts.
/// Does nothing if no unit is recorded as frozen.
///
/// # Errors
/// If a unit cannot be thawed, or was not frozen until now: then the captured state is not
/// consistent.
pub async fn thaw(machine: Machine<'_>) -> Result<()> {
    let Machine { manager, root, .. } = machine;
    let path = root.at(paths::FROZEN_UNITS);
    let Some(units) = read_json::<Vec<Frozen>>(&path)? else { return Ok(()) };
    let mut lost = Vec::new();
    for frozen in &units {
        match manager.state(&frozen.unit).await {
            Ok(state) => lost.extend(frozen.change(root, &state)),
            Err(error) => lost.push(format!("{error:#}")),
        }
    }
    let mut failed = Ok(());
    let mut ended = Vec::new();
    for frozen in units.iter().filter(|frozen| frozen.ran) {
        match thaw_unit(machine, &frozen.unit).await {
            Ok(state) if was_ended(&state) => {
                ended.push(Paused { unit: frozen.unit.clone(), left_down: Vec::new() })
            }
            Ok(_) => {}
            Err(error) => failed = Err(error),
        }
    }
    if !ended.is_empty() {
        let mut paused = paused::load(root)?.unwrap_or_default();
        ended.retain(|ended| !paused.iter().any(|paused| paused.unit == ended.unit));
        paused.extend(ended);
        paused::save(root, &paused)?;
    }
    failed?;
    own::remove(path)?;
    ensure!(
        lost.is_empty(),
        "{}: what was captured meanwhile is not of one moment",
        lost.join(", ")
    );
    Ok(())
}

/// Thaws a unit, and returns its state afterwards.
async fn thaw_unit(machine: Machine<'_>, unit: &str) -> Result<UnitState> {
    let Machine { manager, root, .. } = machine;
    // systemd does not thaw a unit that it is stopping: without the write below, such a unit would
    // stay frozen until it is killed.
    let thawed = manager.thaw(unit).await;
    let state = manager.state(unit).await?;
    if is_frozen(root, &state) {
        tracing::warn!(
            unit,
            "systemd does not thaw it: {}",
            thawed.err().map_or_else(String::new, |error| format!("{error:#}"))
        );
        cgroup::thaw(root, &state.control_group)
            .with_context(|| format!("{unit} stays frozen: systemctl kill -s KILL {unit}"))?;
    }
    Ok(state)
}

/// Whether the unit has ended or is ending, without a job that asks for it.
fn was_ended(state: &UnitState) -> bool {
    match state.active {
        ActiveState::Active | ActiveState::Reloading | ActiveState::Inactive => false,
        ActiveState::Failed | ActiveState::Activating => !state.has_job(),
        ActiveState::Deactivating => !state.has_job() && state.result != "success",
    }
}

/// Whether the kernel has frozen the unit's processes. systemd still reports a unit as frozen if
/// its processes were killed and started again.
fn is_frozen(root: &RootDirectory, state: &UnitState) -> bool {
    if state.control_group.is_empty() {
        return state.frozen;
    }
    cgroup::is_frozen(root, &state.control_group)
}
