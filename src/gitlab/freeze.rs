//! `quiesce = "freeze"`: the writers are frozen instead of stopped.
//!
//! What is captured then is what a loss of power would have left: PostgreSQL, Redis and Git recover
//! from that, each by itself. That a push which was under way is in all of them or in none is not
//! promised.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::config::{Config, Quiesce};
use crate::finding::Finding;
use crate::host::own;
use crate::machine::Machine;
use crate::paths::{self, RootDirectory};
use crate::runs::paused;
use crate::runs::record::{read_json, write_json};
use crate::systemd::{ActiveState, Manager, Paused, ServiceManager, UnitState};
use crate::values::Timespan;

/// statfs(2): the unified control group hierarchy.
const CGROUP2: i64 = 0x6367_7270;

/// Fails where systemd cannot freeze units: it needs the unified hierarchy.
pub fn possible(root: &RootDirectory) -> Result<()> {
    let found =
        rustix::fs::statfs(root.at(paths::CGROUP)).context("cannot look at /sys/fs/cgroup")?;
    if found.f_type != CGROUP2 {
        bail!(
            "quiesce = \"freeze\" needs the unified control group hierarchy (cgroup v2), and this host has version 1: use \"stop\""
        );
    }
    Ok(())
}

/// The writers that systemd would end in a window which lasts as long as it may.
pub async fn findings(config: &Config) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    if config.gitlab.quiesce == Quiesce::Freeze {
        let manager = Manager::connect().await?;
        let longest = config.gitlab.max_downtime.duration();
        for unit in &config.gitlab.writers {
            if let Some(watchdog) =
                manager.state(unit.as_str()).await?.watchdog.filter(|watchdog| *watchdog < longest)
            {
                let words = format!(
                    "{unit} has WatchdogSec={}: frozen for longer it is ended and started again, and the run fails; a shorter [gitlab] \
                    max-downtime would let it go before",
                    Timespan::from(watchdog)
                );
                findings.push(Finding::warning("freeze", words));
            }
        }
    }
    Ok(findings)
}

/// A unit of GitLab's, as it was when what ran was frozen.
#[derive(Debug, Serialize, Deserialize)]
struct Frozen {
    unit: String,
    /// It ran, and was frozen; else it was down.
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

    /// What has become of it, if it is not frozen, or down, as it was.
    fn lost(&self, root: &RootDirectory, now: &UnitState) -> Option<String> {
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
            ActiveState::Deactivating => Some(format!("{unit} was told to stop in the window")),
            _ => Some(format!("{unit} was let go in the window")),
        }
    }
}

/// Freezes every writer that runs. Fails if one cannot be frozen; the bracket's end thaws the
/// others.
pub(crate) async fn freeze(config: &Config, machine: Machine<'_>) -> Result<()> {
    let Machine { manager, root, .. } = machine;
    possible(root)?;
    let mut all = Vec::new();
    for writer in &config.gitlab.writers {
        // Only these have processes.
        if ![".service", ".scope"].iter().any(|kind| writer.as_str().ends_with(kind)) {
            continue;
        }
        let state = manager.state(writer.as_str()).await?;
        match state.active {
            // An admin has, and it stays so.
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
        if let Some(lost) = frozen.lost(root, &manager.state(&frozen.unit).await?) {
            bail!("{lost}, or is not frozen: nothing is captured");
        }
    }
    Ok(())
}

/// Whether something was frozen and has not been let go.
pub fn is_on_record(root: &RootDirectory) -> bool {
    root.at(paths::FROZEN_UNITS).exists()
}

/// Lets go on what is frozen, and has resume start what did not live through it. Nothing on record:
/// nothing to do.
///
/// # Errors If something cannot be let go, or was not frozen until now: then what was captured
/// meanwhile is not of one moment.
pub async fn thaw(machine: Machine<'_>) -> Result<()> {
    let Machine { manager, root, .. } = machine;
    let path = root.at(paths::FROZEN_UNITS);
    let Some(units) = read_json::<Vec<Frozen>>(&path)? else { return Ok(()) };
    let mut lost = Vec::new();
    for frozen in &units {
        match manager.state(&frozen.unit).await {
            Ok(state) => lost.extend(frozen.lost(root, &state)),
            Err(error) => lost.push(format!("{error:#}")),
        }
    }
    let mut failed = Ok(());
    let mut ended = Vec::new();
    for frozen in units.iter().filter(|frozen| frozen.ran) {
        match let_go(machine, &frozen.unit).await {
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

/// Thaws a unit, and tells how it is then.
async fn let_go(machine: Machine<'_>, unit: &str) -> Result<UnitState> {
    let Machine { manager, root, .. } = machine;
    // systemd thaws only what it takes for running and frozen. What it is about to end would stay
    // frozen until it is killed.
    let thawed = manager.thaw(unit).await;
    let state = manager.state(unit).await?;
    if is_frozen(root, &state) {
        tracing::warn!(
            unit,
            "systemd does not thaw it: {}",
            thawed.err().map_or_else(String::new, |error| format!("{error:#}"))
        );
        own::write_to_kernel(group(root, &state).join("cgroup.freeze"), "0")
            .with_context(|| format!("{unit} stays frozen: systemctl kill -s KILL {unit}"))?;
    }
    Ok(state)
}

/// Whether it ends, or has ended, and nobody has asked for that.
fn was_ended(state: &UnitState) -> bool {
    match state.active {
        ActiveState::Active | ActiveState::Reloading | ActiveState::Inactive => false,
        ActiveState::Failed | ActiveState::Activating => !state.has_job(),
        ActiveState::Deactivating => !state.has_job() && state.result != "success",
    }
}

/// Whether the kernel holds its processes: systemd goes on to call a unit frozen whose processes
/// were killed and started again.
fn is_frozen(root: &RootDirectory, state: &UnitState) -> bool {
    if state.control_group.is_empty() {
        return state.frozen;
    }
    own::read_text(group(root, state).join("cgroup.events"))
        .is_ok_and(|events| events.lines().any(|line| line == "frozen 1"))
}

fn group(root: &RootDirectory, state: &UnitState) -> PathBuf {
    root.at(paths::CGROUP).join(state.control_group.trim_start_matches('/'))
}
