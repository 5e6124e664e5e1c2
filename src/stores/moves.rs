//! The replacement of files: renames, each of which can be done again or taken back, wherever the
//! process before was killed.
//!
//! What is live belongs to others, and so may the directories around it: each is held by descriptor
//! for its rename, and no link leads elsewhere.

mod placing;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rustix::fs::FileType;

use crate::host::beneath::{Directory, Held, is_missing};
use crate::runs::restore::{Layout, Move, Moves, Places, Root};

use placing::Placing;

/// Left alone at the top of a file system: fsck's, and of no use to anybody else.
const LOST_FOUND: &str = "lost+found";

/// The renames that put `layout`'s paths in place.
///
/// # Errors
/// If what should be laid out is not.
pub(super) fn plan(layout: &Layout) -> Result<Moves> {
    let staged = layout.places.staged.open()?;
    let mut steps = Vec::new();
    for root in &layout.roots {
        let inside = below(&root.path);
        staged
            .look(inside)?
            .with_context(|| format!("{} is not laid out", staged.path().join(inside).display()))?;
        if !root.mount {
            steps.push(one(&root.path, inside, true)?);
            continue;
        }
        let laid = staged.below(inside)?;
        let live = Directory::open(&root.path)?;
        let mut names: Vec<OsString> =
            live.entries()?.into_iter().chain(laid.entries()?).map(|(name, _)| name).collect();
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
            let new = laid.look(Path::new(&name))?.is_some();
            steps.push(one(&path, &inside.join(&name), new)?);
        }
    }
    Ok(Moves { places: layout.places.clone(), account: None, steps })
}

/// One rename, by what is there now.
pub(super) fn one(live: &Path, inside: &Path, new: bool) -> Result<Move> {
    Ok(Move { live: live.to_owned(), inside: inside.to_owned(), new, old: is_there(live)? })
}

/// Where `path` lies beneath a directory in which it is laid out.
pub(super) fn below(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

/// Whether there is anything at `path`. What is above it may be missing too.
pub(super) fn is_there(path: &Path) -> Result<bool> {
    Ok(match parent(path)? {
        Some((parent, name)) => parent.look(Path::new(&name))?.is_some(),
        None => false,
    })
}

/// The directory in which `path` is, and its name; none if there is no such directory.
fn parent(path: &Path) -> Result<Option<(Directory, OsString)>> {
    match Directory::of(path) {
        Err(error) if is_missing(&error) => Ok(None),
        found => found.map(Some),
    }
}

/// The old aside, the new in place. What was done already is not done again.
pub(super) fn forward(moves: &[Moves]) -> Result<()> {
    each(moves, |moves| {
        let (staged, aside) = (moves.places.staged.open()?, moves.places.aside.open()?);
        let placing = Placing::new(&staged)?;
        for step in &moves.steps {
            let (above, name) = split(&step.inside);
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

/// Proves that everything old which is to come back is there.
///
/// # Errors
/// If something is not. Nothing was touched.
pub(super) fn prove(moves: &[Moves]) -> Result<()> {
    each(moves, |moves| {
        if moves.steps.is_empty() {
            return Ok(());
        }
        let gone = |path: &Path| {
            format!(
                "{} is gone, where what was there before was put aside: nothing is put back",
                path.display()
            )
        };
        let aside =
            moves.places.aside.open_if_there()?.with_context(|| gone(&moves.places.aside.path))?;
        let staged = moves
            .places
            .staged
            .open_if_there()?
            .with_context(|| gone(&moves.places.staged.path))?;
        for step in moves.steps.iter().filter(|step| step.old) {
            // Not aside it can only be where it was: then the new has not come.
            let untouched =
                if step.new { staged.look(&step.inside)?.is_some() } else { is_there(&step.live)? };
            ensure!(
                aside.look(&step.inside)?.is_some() || untouched,
                "what was at {} before is gone from {}: nothing is put back",
                step.live.display(),
                aside.path().display()
            );
        }
        Ok(())
    })
}

/// The new beside again, the old in place. What was not done is not taken back.
pub(super) fn backward(moves: &[Moves]) -> Result<()> {
    each(moves, |moves| {
        let (Some(staged), Some(aside)) =
            (moves.places.staged.open_if_there()?, moves.places.aside.open_if_there()?)
        else {
            return Ok(());
        };
        let placing = Placing::new(&staged)?;
        for step in moves.steps.iter().rev() {
            let (above, name) = split(&step.inside);
            [&staged, &aside].into_iter().try_for_each(|holder| placing.settle(holder, step))?;
            let old = aside.look(&step.inside)?.is_some();
            // What is in place is the new: either nothing was there, or the old is aside.
            let came = !step.old || old;
            if step.new && came && staged.look(&step.inside)?.is_none() && is_there(&step.live)? {
                let (live, live_name) = Directory::of(&step.live)?;
                live.rename(&live_name, &staged.make_all(above, None)?, name)?;
            }
            if step.old && old {
                let (live, live_name) = Directory::of(&step.live)?;
                placing.place(&aside, &step.inside, &live, &live_name)?;
            }
        }
        Ok(())
    })
}

/// Takes out the moves whose old cannot come back any more. Returns why, for each.
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

/// Removes what was staged, and the directory for the old if nothing is in it.
pub(super) fn unstage(places: &Places) -> Result<()> {
    places.staged.remove()?;
    places.aside.remove_empty()
}

/// With the rights that are enough for each.
fn each(moves: &[Moves], what: impl Fn(&Moves) -> Result<()> + Sync) -> Result<()> {
    moves.iter().try_for_each(|moves| match moves.account {
        Some(account) => account.act(|| what(moves)),
        None => what(moves),
    })
}

/// The directories above, and the name.
fn split(path: &Path) -> (&Path, &OsStr) {
    (path.parent().unwrap_or(Path::new("")), path.file_name().unwrap_or(path.as_os_str()))
}

/// The directory for `live`, and its name in it. What is missing is made as it is above `inside` in
/// `like`.
fn make_parents(live: &Path, like: &Directory, inside: &Path) -> Result<(Directory, OsString)> {
    let (above, name) = split(live);
    let (found, missing) = Directory::nearest(above)?;
    // So many levels above the laid out one as above the live one.
    let levels = missing.components().count();
    let model = inside.ancestors().nth(levels + 1).and_then(|model| like.below(model).ok());
    Ok((found.make_all(missing, model.as_ref())?, name.to_owned()))
}

/// Gives roots that could not be renamed what they had in the run.
pub(super) fn adopt_mounts(layout: &Layout) -> Result<()> {
    let staged = layout.places.staged.open()?;
    for Root { path, .. } in layout.roots.iter().filter(|root| root.mount) {
        Directory::open(path)?.adopt(&staged.below(below(path))?)?;
    }
    Ok(())
}

/// What lies at or below `live` and is not at or below its place in `staged`, the topmost of each.
pub(super) fn only_in(live: &Path, staged: &Held) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let Some((parent, name)) = parent(live)? else { return Ok(found) };
    let Some(stat) = parent.look(Path::new(&name))? else { return Ok(found) };
    let staged = staged.open()?;
    let inside = below(live);
    match staged.look(inside)? {
        None => found.push(live.to_owned()),
        Some(other) if !is_directory(stat.st_mode) || !is_directory(other.st_mode) => {
            // A directory where the run has none: all in it is only here.
            found.extend(is_directory(stat.st_mode).then(|| live.to_owned()));
        }
        Some(_) => differences(parent.below(Path::new(&name))?, staged.below(inside)?, &mut found)?,
    }
    Ok(found)
}

/// Two directories that are compared, and what is still to come of the first.
struct Pair {
    live: Directory,
    staged: Directory,
    names: std::vec::IntoIter<(OsString, FileType)>,
}

fn differences(live: Directory, staged: Directory, found: &mut Vec<PathBuf>) -> Result<()> {
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
