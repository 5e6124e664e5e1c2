//! Replaces files by renames. Every rename can be repeated or undone, even if an earlier process
//! was killed at any point between two of them.
//!
//! There are three places: *live*, the path that GitLab uses; *staged*, the directory with the new
//! data; and *aside*, the directory for the old data. Other users may own the live data and the
//! directories above it, so every rename uses descriptors of directories and follows no link.

mod placing;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rustix::fs::FileType;

use crate::host::beneath::{Directory, KnownDirectory, is_missing};
use crate::runs::restore::{Move, Moves, Places, Root, StagingLayout};

use placing::Placing;

/// The directory of fsck(8) at the top of a file system. It is not replaced.
const LOST_FOUND: &str = "lost+found";

/// Plans the renames that put `layout`'s paths in place.
///
/// # Errors
/// If a path is not staged.
pub(super) fn plan(layout: &StagingLayout) -> Result<Moves> {
    let staged = layout.places.staged.open()?;
    let mut steps = Vec::new();
    for root in &layout.roots {
        let inside = below(&root.path);
        staged
            .look(inside)?
            .with_context(|| format!("{} is missing", staged.path().join(inside).display()))?;
        if !root.mount {
            steps.push(plan_move(&root.path, inside, true)?);
            continue;
        }
        // A mount point cannot be renamed: rename its entries.
        let new_root = staged.below(inside)?;
        let live = Directory::open(&root.path)?;
        let mut names: Vec<OsString> =
            live.entries()?.into_iter().chain(new_root.entries()?).map(|(name, _)| name).collect();
        names.sort();
        names.dedup();
        for name in names {
            let path = root.path.join(&name);
            if name == LOST_FOUND
                || [&layout.places.staged.path, &layout.places.aside.path, &layout.kept]
                    .contains(&&path)
            {
                continue;
            }
            let new = new_root.look(Path::new(&name))?.is_some();
            steps.push(plan_move(&path, &inside.join(&name), new)?);
        }
    }
    Ok(Moves { places: layout.places.clone(), account: None, steps })
}

/// Plans the replacement of `live`, depending on whether it exists now.
pub(super) fn plan_move(live: &Path, inside: &Path, new: bool) -> Result<Move> {
    Ok(Move { live: live.to_owned(), inside: inside.to_owned(), new, old: is_there(live)? })
}

/// Where `path` lies below the staged or the aside directory: the same path, but relative.
pub(super) fn below(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

/// Whether `path` exists. The directories above it may be missing too.
pub(super) fn is_there(path: &Path) -> Result<bool> {
    Ok(match parent(path)? {
        Some((parent, name)) => parent.look(Path::new(&name))?.is_some(),
        None => false,
    })
}

/// Opens the directory of `path`, and returns it with the name of `path` in it; `None` if the
/// directory does not exist.
fn parent(path: &Path) -> Result<Option<(Directory, OsString)>> {
    match Directory::of(path) {
        Err(error) if is_missing(&error) => Ok(None),
        found => found.map(Some),
    }
}

/// Moves the old data of every step from its live path to the aside directory, and then the new
/// data from the staged directory to the live path. `inside` is the path of a step in both of these
/// directories; `old` and `new` say whether there was data to move when the restore was planned.
/// Skips renames that are already done, so that a killed restore can be continued: data that is
/// aside, or no longer staged, was moved. The renames are done with the rights of the account of
/// `moves`, or of root.
pub(super) fn forward(moves: &[Moves]) -> Result<()> {
    for_each_as_owner(moves, |moves| {
        let (staged, aside) = (moves.places.staged.open()?, moves.places.aside.open()?);
        let placing = Placing::new(&staged)?;
        for step in &moves.steps {
            let (above, name) = split(&step.inside);
            // A killed process may have left another user's file where our data was.
            [&staged, &aside].into_iter().try_for_each(|holder| placing.settle(holder, step))?;
            if step.old && aside.look(&step.inside)?.is_none() {
                let (live, live_name) = Directory::of(&step.live)?;
                live.rename(&live_name, &aside.make_all(above, None)?, name)?;
            }
            if step.new && staged.look(&step.inside)?.is_some() {
                let (live, live_name) = make_parents(&step.live, &staged, &step.inside)?;
                placing.place(&staged, &step.inside, &live, &live_name)?;
            }
        }
        Ok(())
    })
}

/// Checks that all the old data is still there and can be put back. Changes nothing.
///
/// # Errors
/// If some of the old data is gone.
pub(super) fn prove(moves: &[Moves]) -> Result<()> {
    for_each_as_owner(moves, |moves| {
        if moves.steps.is_empty() {
            return Ok(());
        }
        let gone = |path: &Path| {
            format!("directory {} of the restore is gone: nothing was put back", path.display())
        };
        let aside =
            moves.places.aside.open_if_there()?.with_context(|| gone(&moves.places.aside.path))?;
        let staged = moves
            .places
            .staged
            .open_if_there()?
            .with_context(|| gone(&moves.places.staged.path))?;
        for step in moves.steps.iter().filter(|step| step.old) {
            // If the old data is not aside, it must still be live, and the new data not in place.
            let untouched =
                if step.new { staged.look(&step.inside)?.is_some() } else { is_there(&step.live)? };
            ensure!(
                aside.look(&step.inside)?.is_some() || untouched,
                "the old data of {} is gone from {}: nothing was put back",
                step.live.display(),
                aside.path().display()
            );
        }
        Ok(())
    })
}

/// Undoes [`forward`]: moves the new data back to the staged directory and the old data in place.
/// Skips renames that were not done.
pub(super) fn backward(moves: &[Moves]) -> Result<()> {
    for_each_as_owner(moves, |moves| {
        let (Some(staged), Some(aside)) =
            (moves.places.staged.open_if_there()?, moves.places.aside.open_if_there()?)
        else {
            return Ok(());
        };
        let placing = Placing::new(&staged)?;
        for step in moves.steps.iter().rev() {
            let (above, name) = split(&step.inside);
            [&staged, &aside].into_iter().try_for_each(|holder| placing.settle(holder, step))?;
            let is_aside = aside.look(&step.inside)?.is_some();
            // Then the live data, if there is any, is the new data.
            let is_replaced = !step.old || is_aside;
            if step.new
                && is_replaced
                && staged.look(&step.inside)?.is_none()
                && is_there(&step.live)?
            {
                let (live, live_name) = Directory::of(&step.live)?;
                live.rename(&live_name, &staged.make_all(above, None)?, name)?;
            }
            if step.old && is_aside {
                let (live, live_name) = Directory::of(&step.live)?;
                placing.place(&aside, &step.inside, &live, &live_name)?;
            }
        }
        Ok(())
    })
}

/// Removes the moves whose old data cannot be put back any more. Returns the reason for each.
pub(super) fn forgo(moves: &mut Vec<Moves>) -> Vec<String> {
    let mut reasons = Vec::new();
    moves.retain(|one| match prove(std::slice::from_ref(one)) {
        Ok(()) => true,
        Err(error) => {
            reasons.push(format!("{error:#}"));
            false
        }
    });
    reasons
}

/// Removes the staged directory, and the aside directory if it is empty.
pub(super) fn unstage(places: &Places) -> Result<()> {
    places.staged.remove()?;
    places.aside.remove_empty()
}

/// Calls `action` for each, with the rights of its account, or of root if it has none.
fn for_each_as_owner(moves: &[Moves], action: impl Fn(&Moves) -> Result<()> + Sync) -> Result<()> {
    moves.iter().try_for_each(|moves| match moves.account {
        Some(account) => account.act(|| action(moves)),
        None => action(moves),
    })
}

/// Splits a path into the directories above and the name.
fn split(path: &Path) -> (&Path, &OsStr) {
    (path.parent().unwrap_or(Path::new("")), path.file_name().unwrap_or(path.as_os_str()))
}

/// Opens the directory of `live`, and returns it with the name of `live` in it. Creates missing
/// directories with the owners and modes of the directories above `inside` in `staged`.
fn make_parents(live: &Path, staged: &Directory, inside: &Path) -> Result<(Directory, OsString)> {
    let (above, name) = split(live);
    let (existing, missing) = Directory::nearest(above)?;
    // The staged directory that corresponds to `existing`.
    let levels = missing.components().count();
    let model = inside.ancestors().nth(levels + 1).and_then(|model| staged.below(model).ok());
    Ok((existing.make_all(missing, model.as_ref())?, name.to_owned()))
}

/// Gives the roots that are mount points, which are not renamed, the owner and mode that they had
/// in the run.
pub(super) fn adopt_mounts(layout: &StagingLayout) -> Result<()> {
    let staged = layout.places.staged.open()?;
    for Root { path, .. } in layout.roots.iter().filter(|root| root.mount) {
        Directory::open(path)?.adopt(&staged.below(below(path))?)?;
    }
    Ok(())
}

/// Lists the paths at or below `live` that the staged data does not have. A directory that is
/// missing there is listed without its contents.
pub(super) fn list_only_live(live: &Path, staged: &KnownDirectory) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let Some((parent, name)) = parent(live)? else { return Ok(found) };
    let Some(stat) = parent.look(Path::new(&name))? else { return Ok(found) };
    let staged = staged.open()?;
    let inside = below(live);
    match staged.look(inside)? {
        None => found.push(live.to_owned()),
        Some(other) if !is_directory(stat.st_mode) || !is_directory(other.st_mode) => {
            // A live directory that is a file in the run.
            found.extend(is_directory(stat.st_mode).then(|| live.to_owned()));
        }
        Some(_) => {
            add_only_live(parent.below(Path::new(&name))?, staged.below(inside)?, &mut found)?
        }
    }
    Ok(found)
}

/// Two directories that are compared, and the entries of the live one that are still to compare.
struct Pair {
    live: Directory,
    staged: Directory,
    names: std::vec::IntoIter<(OsString, FileType)>,
}

/// Adds the paths below `live` that `staged` does not have to `found`. Not recursive: the stack is
/// too small for the deepest trees.
fn add_only_live(live: Directory, staged: Directory, found: &mut Vec<PathBuf>) -> Result<()> {
    let pair = |live: Directory, staged: Directory| -> Result<Pair> {
        Ok(Pair { names: live.entries()?.into_iter(), live, staged })
    };
    let mut open = vec![pair(live, staged)?];
    while let Some(last) = open.last_mut() {
        let Some((name, kind)) = last.names.next() else {
            open.pop();
            continue;
        };
        let name = Path::new(&name);
        match last.staged.look(name)? {
            Some(other) if kind == FileType::Directory && is_directory(other.st_mode) => {
                let inner = pair(last.live.below(name)?, last.staged.below(name)?)?;
                open.push(inner);
            }
            Some(_) if kind != FileType::Directory => {}
            _ => found.push(last.live.path().join(name)),
        }
    }
    Ok(())
}

fn is_directory(mode: u32) -> bool {
    FileType::from_raw_mode(mode) == FileType::Directory
}

#[cfg(test)]
mod tests;
