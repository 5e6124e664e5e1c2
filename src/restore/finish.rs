//! The restore is complete and GitLab answers: the old goes, but for what is not in the run.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::config::Config;
use crate::gitlab::readiness;
use crate::host::beneath::{Directory, Held};
use crate::host::identity::Account;
use crate::paths::{self, RootDirectory};
use crate::runs::record::read_json;
use crate::runs::restore::{Journal, Layout, Leftover, Numbers, StagedDatabase, State, Thing};
use crate::runs::{Kind, Record};
use crate::systemd::notify;
use crate::values::RawPath;

use super::{databases, moves, note, undo};

/// Removes what was replaced. Killed at any point, it goes on where it was. What cannot be removed
/// is no failure: it is written down, told, and tried again the next time.
pub async fn finish(config: &Config) -> Result<()> {
    let mut left = Vec::new();
    for leftover in Leftover::load(&RootDirectory::host())? {
        left.extend(again(config, leftover).await?);
    }
    let Some(mut journal) = Journal::load(&RootDirectory::host())? else {
        return Leftover::save(&RootDirectory::host(), &left);
    };
    if journal.state == State::Staging {
        // The machine went down while it was laid out: nothing of it is live.
        notify::status("removing what a restore that was cut off has laid out");
        Leftover::save(&RootDirectory::host(), &left)?;
        return undo::away(config, &journal).await;
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
    // Who restores anew does not want what is here, and may never get an answer of it: that is
    // asked for at the very beginning of his restore. A record without an end is of a restore that
    // goes on only in the boot in which it was asked for.
    let asked = Path::new(paths::RESTORE_ASKED).exists();
    let going_on = Record::last(&RootDirectory::host(), Kind::Restore)?
        .filter(|record| asked && record.finished.is_none());
    let anew = going_on.as_ref().is_some_and(|record| record.stage == "prepare");
    // Nothing of it ran before this restore, and so nothing has been started.
    let down = going_on.is_some() && journal.paused.is_empty();
    if let Some(url) = config
        .gitlab
        .readiness
        .as_ref()
        .filter(|_| journal.state == State::Switched && !anew && !down)
    {
        // It may have gone down again, or the machine with it, before it ever answered.
        let silent = readiness::ask(url).await.err();
        if let Some(error) = silent {
            bail!(
                "GitLab does not answer with what was restored ({error:#}): what was there before is kept until it does, and until then \
                 'gitlab-backup restore --undo' puts it back"
            );
        }
    }
    notify::status("removing what was there before");
    journal.state = State::Finishing;
    journal.save(&RootDirectory::host())?;
    let only_here: Vec<RawPath> = read_json(Path::new(paths::RESTORE_KEPT))?.unwrap_or_default();
    for layout in &journal.plan.layouts {
        let here: Vec<&PathBuf> = only_here
            .iter()
            .map(|RawPath(path)| path)
            .filter(|path| layout.roots.iter().any(|root| path.starts_with(&root.path)))
            .collect();
        let by_hand = match keep(layout, &here) {
            Ok(0) => None,
            Ok(count) => {
                note(format!(
                    "{count} paths that were here and are not in the run are kept in {}",
                    layout.kept.display()
                ))?;
                None
            }
            Err(error) => Some(format!(
                "it has paths that are not in the run, which cannot be kept in {}: {error:#}",
                layout.kept.display()
            )),
        };
        left.extend(without(&layout.places.aside, None, by_hand));
        left.extend(without(&layout.places.staged, None, None));
    }
    for redis in &journal.plan.redis {
        left.extend(
            [&redis.places.staged, &redis.places.aside]
                .into_iter()
                .filter_map(|held| without(held, Some(redis.account), None)),
        );
    }
    for StagedDatabase { replaced, numbers, .. } in &journal.plan.databases {
        // There was none before.
        if matches!(numbers, Some(Numbers { old: None, .. })) {
            continue;
        }
        let number = numbers.and_then(|numbers| numbers.old);
        if let Err(error) = databases::forget(config, replaced, number).await {
            // No backup takes it for a database of GitLab's.
            if let Err(error) = databases::disown(config, replaced, number).await {
                tracing::warn!("{error:#}");
            }
            let thing = Thing::Database { name: replaced.clone(), number };
            left.push(Leftover { thing, why: format!("{error:#}"), by_hand: false });
        }
    }
    if !journal.plan.databases.is_empty()
        && let Err(error) = databases::retire(config).await
    {
        tracing::warn!("{error:#}");
    }
    left.iter().try_for_each(|leftover| note(leftover.to_string()))?;
    Leftover::save(&RootDirectory::host(), &left)?;
    undo::forget_kept()?;
    Journal::clear(&RootDirectory::host())
}

/// Tries once more; what is still left.
async fn again(config: &Config, leftover: Leftover) -> Result<Option<Leftover>> {
    match &leftover.thing {
        Thing::Database { name, number } => {
            Ok(match databases::forget(config, name, *number).await {
                Ok(()) => None,
                Err(error) => Some(Leftover { why: format!("{error:#}"), ..leftover }),
            })
        }
        // Until somebody has removed it.
        Thing::Directory { held, .. } if leftover.by_hand => {
            Ok(held.open_if_there()?.map(|_| leftover))
        }
        Thing::Directory { held, account } => Ok(without(held, *account, None)),
    }
}

/// Removes a directory that was put aside, unless it has to be kept; what is left of it then.
fn without(held: &Held, account: Option<Account>, by_hand: Option<String>) -> Option<Leftover> {
    let removed = || match account {
        Some(account) => account.act(|| held.remove()),
        None => held.remove(),
    };
    let why = match &by_hand {
        Some(why) => why.clone(),
        None => format!("{:#}", removed().err()?),
    };
    Some(Leftover {
        thing: Thing::Directory { held: held.clone(), account },
        why,
        by_hand: by_hand.is_some(),
    })
}

/// Moves what was at `paths` to where it is kept; how many are there now. Some may have been moved
/// before.
fn keep(layout: &Layout, paths: &[&PathBuf]) -> Result<usize> {
    let Some(aside) = layout.places.aside.open_if_there()?.filter(|_| !paths.is_empty()) else {
        return Ok(0);
    };
    let (parent, name) = Directory::of(&layout.kept)?;
    let kept = match parent.look(Path::new(&name))? {
        Some(_) => parent.below(Path::new(&name))?,
        None => parent.make(&name, 0o700)?,
    };
    ensure!(
        kept.stat()?.st_uid == rustix::process::geteuid().as_raw(),
        "{} is not root's: move it away, what is not in the run is kept there",
        layout.kept.display()
    );
    let mut count = 0;
    for path in paths {
        let inside = moves::below(path);
        let (above, name) = (
            inside.parent().unwrap_or(Path::new("")),
            inside.file_name().context("a path without a name is kept")?,
        );
        if aside.look(inside)?.is_some() {
            let from = aside.below(above)?;
            from.rename(name, &kept.make_all(above, Some(&aside))?, name)?;
        }
        count += usize::from(kept.look(inside)?.is_some());
    }
    Ok(count)
}
