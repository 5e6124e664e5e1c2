//! Puts the old back, and removes what was staged.

use std::path::Path;

use anyhow::{Result, ensure};
use jiff::Timestamp;

use crate::config::Config;
use crate::host::own;
use crate::paths::{self, RootDirectory};
use crate::runs::notes::note;
use crate::runs::paused;
use crate::runs::record::write_json;
use crate::runs::restore::{Journal, RestorePlan, State};
use crate::stores::Restoration;
use crate::stores::restoration::{self, plan};
use crate::systemd::{Manager, ServiceManager, notify};

/// The first step of a restore in its window: undoes an unfinished restore, and begins the journal
/// of this one.
pub async fn undo(config: &Config) -> Result<()> {
    let plan = plan()?;
    let mut stores = restoration::all(config);
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
            // This restore brings its own: an owner who has removed the old where it was put aside
            // must not keep GitLab down by that.
            for reason in stores.iter().flat_map(|store| store.forgo(&mut journal)) {
                note(format!("{reason}; it stays as it is, until it is restored"))?;
            }
        }
        back(&mut stores, &manager, &mut journal).await?;
        unstage_all(&mut stores, &journal).await?;
    }
    match plan.run {
        Some(_) => begin(&mut stores, plan).await,
        None => Ok(()),
    }
}

/// Begins a journal. It names every directory before it is created, and knows each after that.
async fn begin(stores: &mut [Box<dyn Restoration + '_>], plan: RestorePlan) -> Result<()> {
    for store in &mut *stores {
        store.remove_stale(&plan).await?;
    }
    let root = RootDirectory::host();
    let mut journal = Journal {
        state: State::Staging,
        started: Timestamp::now(),
        switched: None,
        undo: false,
        plan,
        paused: paused::load(&root)?.unwrap_or_default(),
        moves: Vec::new(),
        redis_moves: Vec::new(),
    };
    journal.save(&root)?;
    for store in stores {
        store.create_directories(&mut journal.plan)?;
    }
    journal.save(&root)?;
    write_json(Path::new(paths::RESTORE_PLAN), &journal.plan)
}

/// Removes what a restore staged that replaced nothing. One that has replaced something is left to
/// [`undo`] and [`super::finish`].
pub async fn unstage(config: &Config) -> Result<()> {
    let Some(mut journal) = Journal::load(&RootDirectory::host())? else { return Ok(()) };
    if journal.state != State::Staging {
        return Ok(());
    }
    let manager = Manager::connect().await?;
    let mut stores = restoration::all(config);
    back(&mut stores, &manager, &mut journal).await?;
    unstage_all(&mut stores, &journal).await
}

/// Puts everything old in place, and everything new beside.
pub(super) async fn back(
    stores: &mut [Box<dyn Restoration + '_>],
    manager: &dyn ServiceManager,
    journal: &mut Journal,
) -> Result<()> {
    if journal.state != State::Staging {
        prove(stores, journal).await?;
        for store in &mut *stores {
            store.stop_servers(&journal.plan, manager).await?;
        }
        call_back(stores, manager, journal).await?;
        for store in stores.iter().rev() {
            store.move_back(journal)?;
        }
        rustix::fs::sync();
        (journal.state, journal.undo) = (State::Staging, false);
        journal.save(&RootDirectory::host())?;
    }
    up(stores, manager, journal).await
}

/// First of all what others can refuse: all of it, or nothing. Killed behind this, GitLab would be
/// half new and half old, and so the journal says.
async fn call_back(
    stores: &mut [Box<dyn Restoration + '_>],
    manager: &dyn ServiceManager,
    journal: &mut Journal,
) -> Result<()> {
    let before = journal.state;
    journal.state = State::Switching;
    journal.save(&RootDirectory::host())?;
    let mut came_back = false;
    for store in &mut *stores {
        let Err(refused) = store.switch_back(journal).await else {
            came_back = true;
            continue;
        };
        if before.has_taken_place() && refused.untouched && !came_back {
            journal.state = before;
            journal.save(&RootDirectory::host())?;
            up(stores, manager, journal).await?;
        }
        return Err(refused.error);
    }
    Ok(())
}

async fn up(
    stores: &mut [Box<dyn Restoration + '_>],
    manager: &dyn ServiceManager,
    journal: &Journal,
) -> Result<()> {
    for store in stores {
        store.start_servers(&journal.plan, manager).await?;
    }
    Ok(())
}

/// Proves that the old can be put back, before anything is moved.
///
/// # Errors
/// If some of it is gone. Nothing was touched.
pub(super) async fn prove(
    stores: &mut [Box<dyn Restoration + '_>],
    journal: &Journal,
) -> Result<()> {
    journal.ensure_undoable()?;
    for store in stores {
        store.prove(journal).await?;
    }
    Ok(())
}

/// Removes what was staged, and the journal with it.
pub(super) async fn unstage_all(
    stores: &mut [Box<dyn Restoration + '_>],
    journal: &Journal,
) -> Result<()> {
    // A store that cannot remove its own does not keep the others.
    let mut all = Vec::new();
    for store in stores {
        all.push(store.unstage(&journal.plan).await);
    }
    all.into_iter().collect::<Result<()>>()?;
    forget_kept()?;
    Journal::clear(&RootDirectory::host())
}

/// Removes the list of what is not in the run.
pub(super) fn forget_kept() -> Result<()> {
    own::remove(paths::RESTORE_KEPT)
}
