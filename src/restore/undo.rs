//! Puts the old data back, and removes the staged data.

use anyhow::{Result, ensure};

use crate::config::Config;
use crate::host::own;
use crate::machine::{Base, Machine};
use crate::paths::{self, RootDirectory};
use crate::runs::notes::note;
use crate::runs::paused;
use crate::runs::record::write_json;
use crate::runs::restore::{RestoreJournal, RestorePlan, State};
use crate::stores::Restoration;
use crate::stores::restoration::{self, plan};
use crate::systemd::{ServiceManager, notify};

/// The first step of a restore in its window: undoes an unfinished restore, and begins the journal
/// of this one.
pub async fn undo<M: ServiceManager>(
    config: &Config,
    base: Base<'_>,
    connect: impl AsyncFnOnce() -> Result<M>,
) -> Result<()> {
    let root = base.root;
    let plan = plan(root)?;
    let mut stores = restoration::all(config, root);
    if let Some(mut journal) = RestoreJournal::load(root)? {
        // The executor finishes a complete restore before it starts another.
        ensure!(
            plan.run.is_none() || !journal.state.has_taken_place(),
            "the restore before this one is complete but not finished: 'gitlab-backup restore' or \
             'gitlab-backup run' finishes it first"
        );
        tracing::warn!(
            run = ?journal.plan.run,
            state = ?journal.state,
            "putting back the data that an unfinished restore has replaced"
        );
        notify::status("putting back the data that an unfinished restore has replaced");
        let manager = connect().await?;
        if plan.run.is_some() && journal.state == State::Switching {
            // The restore that begins replaces this data anyway. So it must not fail, and keep
            // GitLab down, because an account has deleted its old data where it was put aside.
            for reason in stores.iter().flat_map(|store| store.forgo(&mut journal)) {
                let words = "it is left as it is until this restore replaces it";
                note(root, format!("{reason}; {words}"))?;
            }
        }
        put_back(&mut stores, base.with(&manager), &mut journal).await?;
        unstage_all(&mut stores, &journal, root).await?;
    }
    match plan.run {
        Some(_) => begin(&mut stores, plan, base).await,
        None => Ok(()),
    }
}

/// Begins the journal of this restore. It names every directory before the directory is created, so
/// that a crash leaves nothing unknown, and afterwards holds their inode numbers.
async fn begin(
    stores: &mut [Box<dyn Restoration + '_>],
    plan: RestorePlan,
    base: Base<'_>,
) -> Result<()> {
    let Base { clock, root, .. } = base;
    for store in &mut *stores {
        store.remove_stale(&plan).await?;
    }
    let mut journal = RestoreJournal {
        state: State::Staging,
        started: clock.now(),
        switched: None,
        undo: false,
        plan,
        paused: paused::load(root)?.unwrap_or_default(),
        moves: Vec::new(),
        redis_moves: Vec::new(),
    };
    journal.save(root)?;
    for store in stores {
        store.create_directories(&mut journal.plan)?;
    }
    journal.save(root)?;
    write_json(&root.at(paths::RESTORE_PLAN), &journal.plan)
}

/// Removes the staged data of a restore that has replaced nothing. A restore that has replaced some
/// data is left to [`undo`] and [`super::finish`].
pub async fn unstage<M: ServiceManager>(
    config: &Config,
    base: Base<'_>,
    connect: impl AsyncFnOnce() -> Result<M>,
) -> Result<()> {
    let Some(mut journal) = RestoreJournal::load(base.root)? else { return Ok(()) };
    if journal.state != State::Staging {
        return Ok(());
    }
    let manager = connect().await?;
    let mut stores = restoration::all(config, base.root);
    put_back(&mut stores, base.with(&manager), &mut journal).await?;
    unstage_all(&mut stores, &journal, base.root).await
}

/// Puts the old data of every store back in place, and the new data back into staging. Then starts
/// the servers that the restore has stopped.
pub(super) async fn put_back(
    stores: &mut [Box<dyn Restoration + '_>],
    machine: Machine<'_>,
    journal: &mut RestoreJournal,
) -> Result<()> {
    if journal.state != State::Staging {
        ensure_possible(stores, journal).await?;
        for store in &mut *stores {
            store.stop_servers(&journal.plan, machine).await?;
        }
        call_back(stores, machine, journal).await?;
        for store in stores.iter().rev() {
            store.move_back(journal)?;
        }
        rustix::fs::sync();
        (journal.state, journal.undo) = (State::Staging, false);
        journal.save(machine.root)?;
    }
    start_servers(stores, machine, journal).await
}

/// Calls back the stores whose server can refuse, before anything is moved. The journal is set to
/// [`State::Switching`] first: if this is killed, GitLab's data may be half new and half old. If a
/// store refuses before anything has changed, the earlier state is recorded again.
async fn call_back(
    stores: &mut [Box<dyn Restoration + '_>],
    machine: Machine<'_>,
    journal: &mut RestoreJournal,
) -> Result<()> {
    let before = journal.state;
    journal.state = State::Switching;
    journal.save(machine.root)?;
    let mut changed = false;
    for store in &mut *stores {
        match store.switch_back(journal).await {
            Ok(this) => changed |= this,
            Err(refused) => {
                if before.has_taken_place() && refused.untouched && !changed {
                    journal.state = before;
                    journal.save(machine.root)?;
                    start_servers(stores, machine, journal).await?;
                }
                return Err(refused.error);
            }
        }
    }
    Ok(())
}

/// Starts the servers that the restore has stopped.
async fn start_servers(
    stores: &mut [Box<dyn Restoration + '_>],
    machine: Machine<'_>,
    journal: &RestoreJournal,
) -> Result<()> {
    for store in stores {
        store.start_servers(&journal.plan, machine).await?;
    }
    Ok(())
}

/// Checks that the old data of every store can be put back. Changes nothing.
///
/// # Errors
/// If some of the old data is gone.
pub(super) async fn ensure_possible(
    stores: &mut [Box<dyn Restoration + '_>],
    journal: &RestoreJournal,
) -> Result<()> {
    journal.ensure_undoable()?;
    for store in stores {
        store.prove(journal).await?;
    }
    Ok(())
}

/// Removes the staged data of every store, and then the journal.
pub(super) async fn unstage_all(
    stores: &mut [Box<dyn Restoration + '_>],
    journal: &RestoreJournal,
    root: &RootDirectory,
) -> Result<()> {
    // Try all stores, even if one fails.
    let mut all = Vec::new();
    for store in stores {
        all.push(store.unstage(&journal.plan).await);
    }
    all.into_iter().collect::<Result<()>>()?;
    remove_kept_list(root)?;
    RestoreJournal::clear(root)
}

/// Removes the list of the paths that are not in the run.
pub(super) fn remove_kept_list(root: &RootDirectory) -> Result<()> {
    own::remove(root.at(paths::RESTORE_KEPT))
}
