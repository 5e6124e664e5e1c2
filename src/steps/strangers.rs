//! What belongs to GitLab by its name, its slice or its account, runs, and is not stopped for a backup: a copy of Sidekiq's unit, a second Gitaly.

use std::collections::BTreeSet;

use anyhow::Result;

use crate::config::Config;
use crate::finding::Finding;
use crate::systemd::{Manager, UnitState, stop_closure};

/// What is ours, waits for jobs and writes nothing that is backed up (gitlab-runner), or is somebody's login.
const KNOWN: [&str; 5] = ["gitlab-backup", "gitlab-runner", "user@", "user-runtime-dir@", "session-"];

/// Such units, in words. None where nothing of GitLab's is run by systemd itself, but all by something else (runit, a container): the unit that runs
/// that is not to be stopped.
pub async fn running(config: &Config, manager: &Manager) -> Result<Vec<String>> {
    if config.gitlab.writers.iter().all(|writer| config.gitlab.is_proxy(writer)) {
        return Ok(Vec::new());
    }
    let writers: Vec<String> = config.gitlab.writers.iter().map(ToString::to_string).collect();
    let stopped = stop_closure(manager, &writers, &[]).await?;
    let names: BTreeSet<&str> = stopped.iter().flat_map(|state| [state.name.as_str(), state.id.as_str()]).collect();
    let accounts: BTreeSet<u32> = stopped.iter().filter_map(|state| state.uid).filter(|uid| *uid != 0).collect();
    let mut found = Vec::new();
    for name in manager.running_services().await? {
        if names.contains(name.as_str()) || KNOWN.iter().any(|known| name.starts_with(known)) {
            continue;
        }
        if let Some(why) = why(&manager.state(&name).await?, &accounts) {
            found.push(format!(
                "{name} runs and is not stopped for a backup ({why}): what it writes meanwhile may be torn; name it in [gitlab] writers with the others"
            ));
        }
    }
    Ok(found)
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
    if state.control_group.split('/').any(|part| part.starts_with("gitlab") && part.ends_with(".slice")) {
        return Some("it is in GitLab's slice");
    }
    state.uid.is_some_and(|uid| accounts.contains(&uid)).then_some("it runs as GitLab's account")
}
