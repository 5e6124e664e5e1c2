//! What belongs to GitLab by its name, its slice or its account, runs, and is not stopped for a
//! backup: a copy of Sidekiq's unit, a second Gitaly.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;

use anyhow::Result;

use crate::config::{Config, OMNIBUS, SUPERVISOR};
use crate::finding::Finding;
use crate::host::own;
use crate::systemd::{Manager, ServiceManager, UnitState, stop_closure};
use crate::values::UnitName;

/// What is ours, waits for jobs and writes nothing that is backed up (gitlab-runner), is a
/// database, which is captured while it runs, or is somebody's login.
const KNOWN: [&str; 6] =
    ["gitlab-backup", "gitlab-runner", "postgresql", "user@", "user-runtime-dir@", "session-"];

/// Such units, in words.
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
    // Whatever runs what is behind a proxy (runit, an init script, a container's client) may have
    // GitLab's name, and is root's.
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
        if let Some(why) = why(&state, &accounts) {
            found.push(format!(
                "{name} runs and is not stopped for a backup ({why}): what it writes meanwhile may be torn; name it in [gitlab] writers with the \
                 others, or in stays-up if it writes nothing that is backed up"
            ));
        }
    }
    found.extend(triggers(manager, &stopped, &names).await?);
    Ok(found)
}

/// What starts in the window what is down in it, and with it a writer, in words: GitLab's own
/// backup by a timer of NixOS, which is bound to Puma.
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
                    "{trigger} starts {}, which is stopped for a backup: one that it starts meanwhile ends the window, and the run fails; name it \
                     in [gitlab] writers with the others",
                    state.name
                ));
            }
        }
    }
    Ok(found)
}

/// The accounts that GitLab runs as: those of the units that are stopped, and below runit, where a
/// proxy tells none, the owners of its files. In a container an account has a number that is
/// somebody else's outside.
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

/// The same, for a look by hand.
pub async fn findings(config: &Config) -> Result<Vec<Finding>> {
    let found = running(config, &Manager::connect().await?).await?;
    Ok(found.into_iter().map(|words| Finding::warning("gitlab", words)).collect())
}

fn why(state: &UnitState, accounts: &BTreeSet<u32>) -> Option<&'static str> {
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
