//! Back to what was there before, and away with what was laid out.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use jiff::Timestamp;

use crate::config::Config;
use crate::paths;
use crate::runs::paused;
use crate::runs::restore::{Journal, State};
use crate::systemd::{Manager, notify};

use super::{moves, plan, redis, switch};

/// The first step of a restore that has the window: what an unfinished one has replaced is put back, and the new one's journal begun.
pub async fn undo(config: &Config) -> Result<()> {
    if let Some(mut journal) = Journal::load()? {
        tracing::warn!(run = ?journal.plan.run, state = ?journal.state, "putting back what an unfinished restore has replaced");
        notify::status("putting back what an unfinished restore has replaced");
        let manager = Manager::connect().await?;
        back(config, &manager, &mut journal).await?;
        away(config, &journal).await?;
    }
    let plan = plan()?;
    if plan.run.is_none() {
        return Ok(());
    }
    let paused = paused::load()?.unwrap_or_default();
    Journal { state: State::Staging, started: Timestamp::now(), plan, paused, moves: Vec::new(), redis_moves: Vec::new() }.save()
}

/// What a restore that replaced nothing laid out is removed; what was replaced stays for [`undo`] and [`super::finish`].
pub async fn unstage(config: &Config) -> Result<()> {
    let Some(mut journal) = Journal::load()? else { return Ok(()) };
    if journal.state != State::Staging {
        return Ok(());
    }
    let manager = Manager::connect().await?;
    back(config, &manager, &mut journal).await?;
    away(config, &journal).await
}

/// Everything old in place, everything new beside.
pub(super) async fn back(config: &Config, manager: &Manager, journal: &mut Journal) -> Result<()> {
    if journal.state != State::Staging {
        redis::stop(&journal.plan, manager).await?;
        moves::backward(&journal.moves)?;
        moves::backward(&journal.redis_moves)?;
        switch::databases_back(config, &journal.plan).await?;
        rustix::fs::sync();
        journal.state = State::Staging;
        journal.save()?;
    }
    redis::start(config, &journal.plan, manager).await
}

/// Removes what was laid out, and the journal with it.
async fn away(config: &Config, journal: &Journal) -> Result<()> {
    let names: Vec<&str> = journal.plan.databases.iter().map(|database| database.staged.as_str()).collect();
    switch::drop_databases(config, &names).await?;
    for redis in &journal.plan.redis {
        let (staged, aside) = redis::directories(&journal.plan, redis);
        remove(&staged)?;
        remove_empty(&aside)?;
    }
    for layout in &journal.plan.layouts {
        remove(&layout.staged)?;
        remove_empty(&layout.aside)?;
    }
    forget_kept()?;
    Journal::clear()
}

/// Removes directories in which what was there before has been, and nothing else is.
fn remove_empty(directory: &Path) -> Result<()> {
    for name in moves::entries(directory)? {
        remove_empty(&directory.join(name))?;
    }
    match fs::remove_dir(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}: it should hold nothing any more", directory.display()))
        }
        _ => Ok(()),
    }
}

/// Removes a directory of ours, if it is there.
pub(super) fn remove(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", directory.display()))
        }
        _ => Ok(()),
    }
}

/// Removes the list of what is not in the run.
pub(super) fn forget_kept() -> Result<()> {
    match fs::remove_file(paths::RESTORE_KEPT) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", paths::RESTORE_KEPT))
        }
        _ => Ok(()),
    }
}
