//! Finds running units that seem to belong to GitLab, by their name, slice or account, but are not
//! stopped for a backup: for example a copy of Sidekiq's unit, or a second Gitaly.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;

use anyhow::Result;

use crate::config::{Config, OMNIBUS, SUPERVISOR};
use crate::finding::Finding;
use crate::host::own;
use crate::systemd::{ServiceManager, UnitState, stop_closure};
use crate::values::UnitName;

/// Prefixes of units that may run during a backup: this program's, gitlab-runner (writes nothing
/// that is backed up), databases (captured while they run), and login sessions.
const KNOWN: [&str; 6] =
    ["gitlab-backup", "gitlab-runner", "postgresql", "user@", "user-runtime-dir@", "session-"];

/// A warning for each such unit, and for each unit that could start a stopped one in the window.
pub async fn running(config: &Config, manager: &dyn ServiceManager) -> Result<Vec<String>> {
    let stopped = stop_closure(
        manager,
        &UnitName::texts(&config.gitlab.writers),
        &UnitName::texts(&config.gitlab.stopped_alone),
    )
    .await?;
    let mut names: BTreeSet<&str> =
        stopped.iter().flat_map(|state| [state.name.as_str(), state.id.as_str()]).collect();
    names.extend(
        config
            .gitlab
            .stays_up
            .iter()
            .chain(config.redis.iter().filter_map(|redis| redis.unit.as_ref()))
            .map(UnitName::as_str),
    );
    names.insert(SUPERVISOR);
    let accounts = accounts(config, &stopped);
    // If all writers are proxies, a unit named after GitLab that runs as root is the supervisor
    // (runit, an init script, a container's client), which must keep running.
    let all_proxies = config.gitlab.writers.iter().all(|writer| config.gitlab.is_proxy(writer));
    let mut found = Vec::new();
    for name in manager.running_services().await? {
        if names.contains(name.as_str()) || KNOWN.iter().any(|known| name.starts_with(known)) {
            continue;
        }
        let state = manager.state(&name).await?;
        if all_proxies && state.uid.is_none_or(|uid| uid == 0) {
            continue;
        }
        if let Some(why) = reason(&state, &accounts) {
            found.push(format!(
                "{name} runs and is not stopped for a backup ({why}): what it writes meanwhile \
                 may be torn; name it in [gitlab] writers with the others, or in stays-up if it \
                 writes nothing that is backed up"
            ));
        }
    }
    found.extend(triggers(manager, &stopped, &names).await?);
    Ok(found)
}

/// A warning for each unit that can start a stopped unit in the window, such as the timer of
/// GitLab's own backup on NixOS.
async fn triggers(
    manager: &dyn ServiceManager,
    stopped: &[UnitState],
    names: &BTreeSet<&str>,
) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for state in stopped {
        for trigger in state.triggers().iter().filter(|trigger| !names.contains(trigger.as_str())) {
            if manager.state(trigger).await?.active.is_running() {
                found.push(format!(
                    "{trigger} starts {}, which is stopped for a backup: one that it starts \
                     meanwhile ends the window, and the run fails; name it in [gitlab] writers \
                     with the others",
                    state.name
                ));
            }
        }
    }
    Ok(found)
}

/// The accounts that GitLab runs as: those of the stopped units and, with the Omnibus package,
/// whose proxies have none, the owners of its files. Not with other proxies: outside of a
/// container, the number of an account may belong to another user.
fn accounts(config: &Config, stopped: &[UnitState]) -> BTreeSet<u32> {
    let of_units = stopped.iter().filter_map(|state| state.uid);
    let below_runit = config.gitlab.layout == OMNIBUS;
    let of_files = config
        .files
        .paths
        .iter()
        .filter(|_| below_runit)
        .filter_map(|path| Some(own::metadata(path).ok()?.uid()));
    of_units.chain(of_files).filter(|uid| *uid != 0).collect()
}

/// For `check`: the same as findings.
pub async fn findings<M: ServiceManager>(
    config: &Config,
    connect: impl AsyncFnOnce() -> Result<M>,
) -> Result<Vec<Finding>> {
    let found = running(config, &connect().await?).await?;
    Ok(found.into_iter().map(|words| Finding::warning("gitlab", words)).collect())
}

/// Why a unit seems to belong to GitLab, if it does.
fn reason(state: &UnitState, accounts: &BTreeSet<u32>) -> Option<&'static str> {
    if state.name.starts_with("gitlab") {
        return Some("by its name it is GitLab's");
    }
    if state
        .control_group
        .split('/')
        .any(|part| part.starts_with("gitlab") && part.ends_with(".slice"))
    {
        return Some("it is in GitLab's slice");
    }
    state.uid.is_some_and(|uid| accounts.contains(&uid)).then_some("it runs as GitLab's account")
}
