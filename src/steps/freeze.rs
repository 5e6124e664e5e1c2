//! `quiesce = "freeze"`: the writers are frozen instead of stopped.
//!
//! What is captured then is what a loss of power would have left: PostgreSQL, Redis and Git recover from that, each by itself. That a push
//! which was under way is in all of them or in none is not promised.

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::config::Config;
use crate::host::own;
use crate::paths;
use crate::runs::record::{read_json, write_json};
use crate::systemd::{ActiveState, Manager};

/// statfs(2): the unified control group hierarchy.
const CGROUP2: i64 = 0x6367_7270;

/// Fails where systemd cannot freeze units: it needs the unified hierarchy.
pub fn possible() -> Result<()> {
    let found = rustix::fs::statfs("/sys/fs/cgroup").context("cannot look at /sys/fs/cgroup")?;
    if found.f_type != CGROUP2 {
        bail!("quiesce = \"freeze\" needs the unified control group hierarchy (cgroup v2), and this host has version 1: use \"stop\"");
    }
    Ok(())
}

/// Freezes every writer that runs. Fails if one cannot be frozen; the bracket's end thaws the others.
pub(super) async fn freeze(config: &Config, manager: &Manager) -> Result<()> {
    possible()?;
    let mut running = Vec::new();
    for writer in &config.gitlab.writers {
        // Only these have processes.
        if ![".service", ".scope"].iter().any(|kind| writer.as_str().ends_with(kind)) {
            continue;
        }
        match manager.state(writer.as_str()).await?.active {
            ActiveState::Active | ActiveState::Reloading => running.push(writer.to_string()),
            ActiveState::Inactive | ActiveState::Failed => {}
            ActiveState::Activating | ActiveState::Deactivating => bail!("{writer} is starting or stopping: nothing is captured"),
        }
    }
    write_json(Path::new(paths::FROZEN_UNITS), &running)?;
    for unit in &running {
        manager.freeze(unit).await?;
    }
    for unit in &running {
        if !manager.state(unit).await?.frozen {
            bail!("{unit} is not frozen: nothing is captured");
        }
    }
    Ok(())
}

/// Lets go on what is frozen. Nothing on record: nothing to do.
pub async fn thaw() -> Result<()> {
    let path = Path::new(paths::FROZEN_UNITS);
    let Some(units) = read_json::<Vec<String>>(path)? else { return Ok(()) };
    let manager = Manager::connect().await?;
    let mut failed = Ok(());
    for unit in &units {
        failed = manager.thaw(unit).await.and(failed);
    }
    failed?;
    own::remove(path)
}
