//! The units of a hold: which are frozen, which lead users to them, and whether all that must be
//! seen can be seen.

use anyhow::{Result, bail, ensure};

use super::kernel::{Kernel, Member};
use crate::config::{Config, Fallback, Phase, Quiesce};
use crate::finding::Finding;
use crate::runs::held::{Group, Listener, Taken};
use crate::systemd::{ServiceManager, UnitState};
use crate::values::UnitName;

/// The name of the process that accepts connections for OpenSSH. Its sessions are processes of
/// their own, also those of admins.
const SSHD: &str = "sshd";

/// What a hold takes.
pub(super) struct Parts {
    /// The running units of the front.
    pub front: Vec<Taken>,
    /// The units to freeze.
    pub back: Vec<(Member, Group)>,
    /// The main processes of the units with a watchdog.
    pub watched: Vec<u32>,
}

impl Parts {
    /// Finds the running units. Fails if one cannot be held.
    pub async fn find(
        config: &Config,
        manager: &dyn ServiceManager,
        kernel: &dyn Kernel,
    ) -> Result<Self> {
        kernel.ensure_freezes()?;
        let gitlab = &config.gitlab;
        let mut parts = Self { front: Vec::new(), back: Vec::new(), watched: Vec::new() };
        for unit in gitlab.held() {
            let state = manager.state(unit.as_str()).await?;
            if state.is_settled() {
                continue;
            }
            ensure!(state.active.is_up(), "{unit} is starting or stopping");
            let group = group(&state)?;
            let member = match gitlab.phase(unit) {
                Some(Phase::Gitaly) => Member::Gitaly,
                _ if kernel.is_puma(&group.path, group.main_pid) => Member::Puma,
                _ if serves_rails(unit) => bail!(
                    "{unit} is no Puma with workers (cluster mode), so its requests cannot be seen"
                ),
                _ => Member::Other,
            };
            parts.watch(&state);
            parts.back.push((member, group));
        }
        if !parts.back.iter().any(|(member, _)| *member == Member::Puma) {
            bail!("none of the running writers is a Puma with workers (cluster mode)");
        }
        parts.find_front(&gitlab.hold.front, manager, kernel).await?;
        Ok(parts)
    }

    /// Finds the running units of the front. A service may have several names.
    async fn find_front(
        &mut self,
        front: &[UnitName],
        manager: &dyn ServiceManager,
        kernel: &dyn Kernel,
    ) -> Result<()> {
        let mut known = Vec::new();
        for unit in front {
            let state = manager.state(unit.as_str()).await?;
            if !state.active.is_up() || known.contains(&state.id) || state.main_pid == 0 {
                continue;
            }
            known.push(state.id.clone());
            self.watch(&state);
            let is_sshd = kernel.name(state.main_pid).is_some_and(|name| name == SSHD);
            self.front.push(match kernel.started(state.main_pid) {
                Some(started) if is_sshd => {
                    Taken::Listener(Listener { unit: state.name, pid: state.main_pid, started })
                }
                _ => Taken::Group(group(&state)?),
            });
        }
        Ok(())
    }

    /// For `check`.
    fn text(&self) -> String {
        let front = self.front.iter().map(|taken| match taken {
            Taken::Group(group) => group.unit.clone(),
            Taken::Listener(listener) => format!("the listener of {}", listener.unit),
        });
        let back: Vec<&str> = self.back.iter().map(|(_, group)| group.unit.as_str()).collect();
        format!(
            "users wait at {} while {} are frozen",
            front.collect::<Vec<_>>().join(", "),
            back.join(", ")
        )
    }

    /// Notes a unit that has a watchdog.
    fn watch(&mut self, state: &UnitState) {
        self.watched.extend(state.watchdog.map(|_| state.main_pid).filter(|pid| *pid != 0));
    }
}

/// The control group of a running unit.
fn group(state: &UnitState) -> Result<Group> {
    if state.control_group.is_empty() || state.main_pid == 0 {
        bail!("{} runs, but systemd knows no main process of it", state.name);
    }
    Ok(Group {
        unit: state.name.clone(),
        path: state.control_group.clone(),
        invocation: state.invocation.clone(),
        main_pid: state.main_pid,
    })
}

/// Whether a unit has the name of a server of Rails.
fn serves_rails(unit: &UnitName) -> bool {
    ["puma", "unicorn"].iter().any(|name| unit.as_str().contains(name))
}

/// For `check`: whether a run holds GitLab, and if not, why.
pub async fn finding<M: ServiceManager>(
    config: &Config,
    kernel: &dyn Kernel,
    connect: impl AsyncFnOnce() -> Result<M>,
) -> Result<Option<Finding>> {
    let hold = &config.gitlab.hold;
    if let Some(why) = &hold.obstacle {
        let words = format!("GitLab is stopped and not held: {why}");
        return Ok(Some(Finding::of("hold", Ok(words))));
    }
    if config.gitlab.quiesce != Quiesce::Hold {
        return Ok(None);
    }
    let then = match hold.fallback {
        Fallback::Stop => "a run stops it instead",
        Fallback::Fail => "a run fails (hold-fallback)",
    };
    let missing = match Parts::find(config, &connect().await?, kernel).await {
        Err(error) => format!("GitLab cannot be held now, and {then}: {error:#}"),
        Ok(parts) if parts.front.is_empty() => format!(
            "no unit of [gitlab] front runs, so users cannot be made to wait: if there is always \
             something in progress, {then}"
        ),
        Ok(parts) => return Ok(Some(Finding::of("hold", Ok(parts.text())))),
    };
    Ok(Some(match hold.is_optional() {
        true => Finding::of("hold", Ok(missing)),
        false => Finding::warning("hold", missing),
    }))
}

/// Why GitLab cannot be held now, although the configuration says that it is to be.
pub async fn obstacle(
    config: &Config,
    manager: &dyn ServiceManager,
    kernel: &dyn Kernel,
) -> Option<String> {
    if config.gitlab.quiesce != Quiesce::Hold {
        return None;
    }
    Parts::find(config, manager, kernel).await.err().map(|error| format!("{error:#}"))
}
