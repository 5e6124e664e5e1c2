//! The last step of a restore: once GitLab answers, removes the old data, except files that are not
//! in the run.

use anyhow::{Result, bail, ensure};

use super::undo;
use crate::config::Config;
use crate::gitlab::readiness;
use crate::paths::{self, RootDirectory};
use crate::runs::notes::note;
use crate::runs::restore::{Leftover, RestoreJournal, State, Thing};
use crate::runs::{Kind, Record};
use crate::stores::restoration;
use crate::stores::{Restoration, leftover};
use crate::systemd::notify;

/// Removes the old data. If it is killed, the next call continues. Data that cannot be removed is
/// not an error: it is recorded and reported, and the next call tries again.
///
/// # Errors
/// If the restore is not complete, an undo was requested, or GitLab does not answer.
pub async fn finish(config: &Config, root: &RootDirectory) -> Result<()> {
    let mut stores = restoration::all(config, root);
    let mut left = Vec::new();
    for leftover in Leftover::load(root)? {
        left.extend(retry_removal(&mut stores, leftover).await);
    }
    let Some(mut journal) = RestoreJournal::load(root)? else { return Leftover::save(root, &left) };
    if journal.state == State::Staging {
        // The restore was interrupted while it was staging, for example by a reboot: nothing is
        // live.
        notify::status("removing what an interrupted restore has staged");
        Leftover::save(root, &left)?;
        return undo::unstage_all(&mut stores, &journal, root).await;
    }
    ensure!(journal.state.has_taken_place(), "the restore is not complete: the old data is kept");
    ensure!(
        !journal.undo,
        "an undo has been requested: the old data is kept until 'gitlab-backup restore --undo' \
         has put it back, or 'gitlab-backup restore --keep' keeps the restored data instead"
    );
    ensure_answers(config, &journal, root).await?;
    notify::status("removing the old data");
    journal.state = State::Finishing;
    journal.save(root)?;
    for store in stores.iter_mut().rev() {
        left.extend(store.finish(&journal).await?);
    }
    left.iter().try_for_each(|leftover| note(root, leftover.to_string()))?;
    Leftover::save(root, &left)?;
    undo::remove_kept_list(root)?;
    RestoreJournal::clear(root)
}

/// Fails if GitLab was started with the restored data and does not answer. The old data must stay
/// until GitLab has answered once.
async fn ensure_answers(
    config: &Config,
    journal: &RestoreJournal,
    root: &RootDirectory,
) -> Result<()> {
    let Some(url) = config.gitlab.readiness.as_ref().filter(|_| journal.state == State::Switched)
    else {
        return Ok(());
    };
    // A record without an end belongs to a running restore only if the request is there, which a
    // reboot removes. Otherwise that restore was killed.
    let has_request = root.at(paths::RESTORE_ASKED).exists();
    let running = Record::last(root, Kind::Restore)?
        .filter(|record| has_request && record.finished.is_none());
    // Another restore begins, so the restored data is given up, and GitLab may never answer with
    // it.
    let is_replaced = running.as_ref().is_some_and(|record| record.stage == "prepare");
    // Nothing of GitLab ran before this restore, so nothing was started after it.
    let was_down = running.is_some() && journal.paused.is_empty();
    if is_replaced || was_down {
        return Ok(());
    }
    if let Err(error) = readiness::ask(url).await {
        bail!(
            "GitLab does not answer with the restored data ({error:#}): the old data is kept \
             until GitLab answers, and until then 'gitlab-backup restore --undo' puts it back"
        );
    }
    Ok(())
}

/// Tries again to remove a leftover. Returns it if it still cannot be removed.
async fn retry_removal(
    stores: &mut [Box<dyn Restoration + '_>],
    leftover: Leftover,
) -> Option<Leftover> {
    if let Thing::Directory { held, account } = &leftover.thing {
        return leftover::retry(held, *account, &leftover);
    }
    for store in stores {
        if let Some(left) = store.retry(&leftover).await {
            return left;
        }
    }
    Some(leftover)
}
