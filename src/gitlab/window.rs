//! The start of the window: checks that every writer and its processes have ended, or freezes the
//! writers with `quiesce = "freeze"`.

use crate::config::{Config, Phase, Quiesce};
use crate::gitlab::freeze;
use crate::host::own;
use crate::machine::Machine;
use crate::paths::{self, RootDirectory};
use crate::systemd::{ActiveState, UnitView};
use crate::units::Plan;
use anyhow::{Result, bail};

/// Fails, and with it the capture, if any writer still runs. A restore needs GitLab `stopped`, also
/// where backups freeze it.
pub async fn open(config: &Config, machine: Machine<'_>, stopped: bool) -> Result<()> {
    if config.gitlab.quiesce == Quiesce::Freeze && !stopped {
        return freeze::freeze(config, machine).await;
    }
    for gate in Plan::new(config).gates(stopped) {
        let state = machine.manager.state(&gate.to_string()).await?;
        if state.result != "success" {
            bail!(
                "{gate} has failed, so pushes may have been cut in the middle: nothing is captured \
                 (journalctl -u {gate})"
            );
        }
    }
    let mut view = UnitView::new(machine.manager).await?;
    for unit in &config.gitlab.stopped_alone {
        wait_until_down(&mut view, unit.as_str()).await?;
    }
    for writer in &config.gitlab.writers {
        let state = machine.manager.state(writer.as_str()).await?;
        if !state.active.is_down() {
            bail!("{writer} is not down ({:?}): nothing is captured", state.active);
        }
        let is_proxy = config.gitlab.is_proxy(writer);
        // A proxy whose stop command failed is down as well, but its service may run.
        if state.active == ActiveState::Failed && is_proxy {
            bail!("{writer} was not stopped: nothing is captured (journalctl -u {writer})");
        }
        // The door writes nothing: a session of sshd may go on.
        if config.gitlab.phase(writer) == Some(Phase::Door) {
            continue;
        }
        let left = processes(machine.root, &state.control_group);
        if !left.is_empty() {
            let who = if is_proxy {
                "its stop command does not end them"
            } else {
                "see KillMode= in its unit"
            };
            bail!("{writer} is stopped, but left processes behind ({}): {who}", left.join(" "));
        }
    }
    Ok(())
}

/// Waits for a stop that the pause has queued. Only the deadline limits how long it takes.
async fn wait_until_down(view: &mut UnitView<'_>, unit: &str) -> Result<()> {
    loop {
        let state = view.state(unit).await?;
        match state.active {
            active if active.is_down() => return Ok(()),
            ActiveState::Deactivating => {}
            _ if state.has_job() => {}
            active => bail!("{unit} is not being stopped ({active:?}): nothing is captured"),
        }
        view.wait_for_change().await?;
    }
}

/// The processes in a control group, in the unified hierarchy or in systemd's hierarchy of version
/// 1.
fn processes(root: &RootDirectory, group: &str) -> Vec<String> {
    if group.is_empty() {
        return Vec::new();
    }
    let all = root.at(paths::CGROUP);
    [all.clone(), all.join("systemd"), all.join("unified")]
        .iter()
        .filter_map(|hierarchy| {
            let group = hierarchy.join(group.trim_start_matches('/'));
            own::read_text(group.join("cgroup.procs")).ok()
        })
        .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
        .collect()
}
