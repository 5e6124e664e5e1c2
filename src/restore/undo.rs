//! Back to what was there before, and away with what was laid out.

use std::path::Path;

use anyhow::{Result, ensure};
use jiff::Timestamp;

use crate::config::Config;
use crate::host::own;
use crate::paths::{self, RootDirectory};
use crate::runs::paused;
use crate::runs::record::write_json;
use crate::runs::restore::{Journal, Places, State};
use crate::systemd::{Manager, notify};

use super::databases::exchange::Server;
use super::{databases, moves, note, plan, redis};

/// The first step of a restore that has the window: what an unfinished one has replaced is put
/// back, and the new one's journal begun.
pub async fn undo(config: &Config) -> Result<()> {
    let plan = plan()?;
    if let Some(mut journal) = Journal::load(&RootDirectory::host())? {
        // The executor has had it finished before.
        ensure!(
            plan.run.is_none() || !journal.state.has_taken_place(),
            "what the restore before this one has put in place stays: it is finished first, which 'gitlab-backup restore' or 'run' does"
        );
        tracing::warn!(run = ?journal.plan.run, state = ?journal.state, "putting back what an unfinished restore has replaced");
        notify::status("putting back what an unfinished restore has replaced");
        let manager = Manager::connect().await?;
        if plan.run.is_some() && journal.state == State::Switching {
            again(&mut journal)?;
        }
        back(config, &manager, &mut journal, &mut Server::of(config)?).await?;
        away(config, &journal).await?;
    }
    if plan.run.is_none() {
        return Ok(());
    }
    databases::clear(config, &plan).await?;
    let paused = paused::load(&RootDirectory::host())?.unwrap_or_default();
    let mut journal = Journal {
        state: State::Staging,
        started: Timestamp::now(),
        switched: None,
        undo: false,
        plan,
        paused,
        moves: Vec::new(),
        redis_moves: Vec::new(),
    };
    // Written down before it is made, and what was made afterwards.
    journal.save(&RootDirectory::host())?;
    for layout in &mut journal.plan.layouts {
        layout.places.make()?;
    }
    journal.save(&RootDirectory::host())?;
    write_json(Path::new(paths::RESTORE_PLAN), &journal.plan)
}

/// A restore that is done again needs nothing of what was put aside: who owns a directory can have
/// removed it there, and must not keep GitLab down by that. What cannot be put back stays as it is.
fn again(journal: &mut Journal) -> Result<()> {
    for moves in [&mut journal.moves, &mut journal.redis_moves] {
        let mut kept = Vec::new();
        for one in std::mem::take(moves) {
            match moves::prove(std::slice::from_ref(&one)) {
                Ok(()) => kept.push(one),
                Err(error) => note(format!("{error:#}; it stays as it is, until it is restored"))?,
            }
        }
        *moves = kept;
    }
    Ok(())
}

/// What a restore that replaced nothing laid out is removed; what was replaced stays for [`undo`]
/// and [`super::finish`].
pub async fn unstage(config: &Config) -> Result<()> {
    let Some(mut journal) = Journal::load(&RootDirectory::host())? else { return Ok(()) };
    if journal.state != State::Staging {
        return Ok(());
    }
    let manager = Manager::connect().await?;
    back(config, &manager, &mut journal, &mut Server::of(config)?).await?;
    away(config, &journal).await
}

/// Everything old in place, everything new beside.
pub(super) async fn back(
    config: &Config,
    manager: &Manager,
    journal: &mut Journal,
    server: &mut Server,
) -> Result<()> {
    if journal.state != State::Staging {
        prove(journal, server).await?;
        redis::stop(&journal.plan, manager).await?;
        // First of all what others can keep from happening: all of it, or nothing. Killed behind
        // it, GitLab would be half new and half old.
        let (before, way) = (journal.state, server.way(journal).await?);
        journal.state = State::Switching;
        journal.save(&RootDirectory::host())?;
        if let Err(error) = server.back(journal).await {
            // Only if that is certain: a server that is lost may have done it.
            if before.has_taken_place() && server.way(journal).await.is_ok_and(|now| now == way) {
                journal.state = before;
                journal.save(&RootDirectory::host())?;
                redis::start(config, &journal.plan, manager).await?;
            }
            return Err(error);
        }
        moves::backward(&journal.moves)?;
        moves::backward(&journal.redis_moves)?;
        rustix::fs::sync();
        (journal.state, journal.undo) = (State::Staging, false);
        journal.save(&RootDirectory::host())?;
    }
    redis::start(config, &journal.plan, manager).await
}

/// Proves that what was there before can be put back, before anything is moved.
///
/// # Errors
/// If something of it is gone. Nothing was touched.
pub(super) async fn prove(journal: &Journal, server: &mut Server) -> Result<()> {
    journal.ensure_undoable()?;
    moves::prove(&journal.moves)?;
    moves::prove(&journal.redis_moves)?;
    server.prove(journal).await
}

/// Removes what was laid out, and the journal with it.
pub(super) async fn away(config: &Config, journal: &Journal) -> Result<()> {
    let databases = databases::unmake(config, &journal.plan).await;
    let redis = journal.plan.redis.iter().map(|redis| redis.account.act(|| unmake(&redis.places)));
    let files = journal.plan.layouts.iter().map(|layout| unmake(&layout.places));
    // What cannot be removed keeps nothing else.
    let all: Vec<Result<()>> = [databases].into_iter().chain(redis).chain(files).collect();
    all.into_iter().collect::<Result<()>>()?;
    forget_kept()?;
    Journal::clear(&RootDirectory::host())
}

/// Removes what was laid out, and the directory in which what was there before has been, and
/// nothing else is.
fn unmake(places: &Places) -> Result<()> {
    places.staged.remove()?;
    places.aside.remove_empty()
}

/// Removes the list of what is not in the run.
pub(super) fn forget_kept() -> Result<()> {
    own::remove(paths::RESTORE_KEPT)
}
