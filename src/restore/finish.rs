//! The restore is complete and GitLab answers: the old is removed, except what is not in the run.

use std::path::Path;

use anyhow::{Result, bail, ensure};

use super::undo;
use crate::config::Config;
use crate::gitlab::readiness;
use crate::paths::{self, RootDirectory};
use crate::runs::notes::note;
use crate::runs::restore::{Journal, Leftover, State, Thing};
use crate::runs::{Kind, Record};
use crate::stores::restoration;
use crate::stores::{Restoration, leftover};
use crate::systemd::notify;

/// Removes the old. Killed at any point, it goes on where it was. What cannot be removed is no
/// failure: it is recorded, reported, and tried again the next time.
pub async fn finish(config: &Config) -> Result<()> {
    let root = &RootDirectory::host();
    let mut stores = restoration::all(config);
    let mut left = Vec::new();
    for leftover in Leftover::load(root)? {
        left.extend(again(&mut stores, leftover).await);
    }
    let Some(mut journal) = Journal::load(root)? else { return Leftover::save(root, &left) };
    if journal.state == State::Staging {
        // The machine went down while it was staged: nothing of it is live.
        notify::status("removing what a restore that was cut off has laid out");
        Leftover::save(root, &left)?;
        return undo::unstage_all(&mut stores, &journal).await;
    }
    ensure!(
        journal.state.has_taken_place(),
        "the restore is not complete: nothing of what was there before is removed"
    );
    ensure!(
        !journal.undo,
        "what was there before is wanted back: nothing of it is removed until 'gitlab-backup restore --undo' has brought it back, or \
         'gitlab-backup restore --keep' keeps what was restored"
    );
    ensure_answers(config, &journal).await?;
    notify::status("removing what was there before");
    journal.state = State::Finishing;
    journal.save(root)?;
    for store in stores.iter_mut().rev() {
        left.extend(store.finish(&journal).await?);
    }
    left.iter().try_for_each(|leftover| note(leftover.to_string()))?;
    Leftover::save(root, &left)?;
    undo::forget_kept()?;
    Journal::clear(root)
}

/// Fails if GitLab was started with what was restored, and does not answer: it may have gone down
/// again, or the machine with it, before it ever did.
async fn ensure_answers(config: &Config, journal: &Journal) -> Result<()> {
    let Some(url) = config.gitlab.readiness.as_ref().filter(|_| journal.state == State::Switched)
    else {
        return Ok(());
    };
    // A record without an end is of a running restore only in the boot in which that was asked for.
    let asked = Path::new(paths::RESTORE_ASKED).exists();
    let running = Record::last(&RootDirectory::host(), Kind::Restore)?
        .filter(|record| asked && record.finished.is_none());
    // An admin who restores again gives up what is here, and may never get an answer from it.
    let again = running.as_ref().is_some_and(|record| record.stage == "prepare");
    // Nothing of GitLab ran before this restore, so nothing has been started.
    let down = running.is_some() && journal.paused.is_empty();
    if again || down {
        return Ok(());
    }
    if let Err(error) = readiness::ask(url).await {
        bail!(
            "GitLab does not answer with what was restored ({error:#}): what was there before is kept until it does, and until then \
             'gitlab-backup restore --undo' puts it back"
        );
    }
    Ok(())
}

/// Tries once more to remove something. Returns it if it is still left.
async fn again(stores: &mut [Box<dyn Restoration + '_>], leftover: Leftover) -> Option<Leftover> {
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
