//! The replacement of files: renames, each of which can be done again or taken back, wherever the process before was killed.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::runs::restore::{Layout, Move, Root};

/// Left alone at the top of a file system: fsck's, and of no use to anybody else.
const LOST_FOUND: &str = "lost+found";

/// The renames that put `layout`'s paths in place.
///
/// # Errors
/// If what should be laid out is not.
pub(super) fn plan(layout: &Layout) -> Result<Vec<Move>> {
    let mut moves = Vec::new();
    for root in &layout.roots {
        let staged = below(&layout.staged, &root.path);
        let aside = below(&layout.aside, &root.path);
        staged.symlink_metadata().with_context(|| format!("{} is not laid out", staged.display()))?;
        if !root.mount {
            moves.push(one(&root.path, Some(staged), aside));
            continue;
        }
        let mut names: Vec<_> = entries(&root.path)?;
        names.extend(entries(&staged)?);
        names.sort();
        names.dedup();
        for name in names {
            let live = root.path.join(&name);
            if name == LOST_FOUND || live == layout.staged || live == layout.aside || live == layout.kept {
                continue;
            }
            let new = staged.join(&name);
            let new = new.symlink_metadata().is_ok().then_some(new);
            moves.push(one(&live, new, aside.join(&name)));
        }
    }
    Ok(moves)
}

/// One rename, by what is there now.
pub(super) fn one(live: &Path, staged: Option<PathBuf>, aside: PathBuf) -> Move {
    let there = live.symlink_metadata().is_ok();
    Move { live: live.to_owned(), staged, aside: there.then_some(aside) }
}

/// Where `path` lies below `directory`.
pub(super) fn below(directory: &Path, path: &Path) -> PathBuf {
    directory.join(path.strip_prefix("/").unwrap_or(path))
}

/// What lies in a directory; nothing if it is not there.
pub(super) fn entries(directory: &Path) -> Result<Vec<std::ffi::OsString>> {
    let read = || fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name())).collect::<std::io::Result<Vec<_>>>();
    match read() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        read => read.with_context(|| format!("cannot read {}", directory.display())),
    }
}

/// The old aside, the new in place. What was done already is not done again.
pub(super) fn forward(moves: &[Move]) -> Result<()> {
    for step in moves {
        if let Some(aside) = step.aside.as_ref().filter(|aside| !exists(aside)) {
            make_parents(aside, None)?;
            rename(&step.live, aside)?;
        }
        if let Some(staged) = step.staged.as_ref().filter(|staged| exists(staged)) {
            make_parents(&step.live, Some(staged))?;
            rename(staged, &step.live)?;
        }
    }
    Ok(())
}

/// The new beside again, the old in place. What was not done is not taken back.
pub(super) fn backward(moves: &[Move]) -> Result<()> {
    for step in moves.iter().rev() {
        if let Some(staged) = step.staged.as_ref().filter(|staged| !exists(staged) && exists(&step.live) && came(step)) {
            make_parents(staged, None)?;
            rename(&step.live, staged)?;
        }
        if let Some(aside) = step.aside.as_ref().filter(|aside| exists(aside)) {
            rename(aside, &step.live)?;
        }
    }
    Ok(())
}

/// Whether what is in place is the new: either nothing was there, or the old is aside.
fn came(step: &Move) -> bool {
    step.aside.as_ref().is_none_or(|aside| exists(aside))
}

fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).with_context(|| format!("cannot rename {} to {}", from.display(), to.display()))
}

/// Makes the directories above `path`; as those above `like` are, if given, else closed.
pub(super) fn make_parents(path: &Path, like: Option<&Path>) -> Result<()> {
    let Some(parent) = path.parent() else { return Ok(()) };
    if parent.exists() {
        return Ok(());
    }
    let like = like.and_then(Path::parent);
    make_parents(parent, like)?;
    let make = || -> Result<()> {
        fs::create_dir(parent)?;
        if let Some(like) = like {
            adopt(like, parent)?;
        }
        Ok(())
    };
    make().with_context(|| format!("cannot make {}", parent.display()))
}

/// Gives `to` the owner, mode and attributes of `from`.
pub(super) fn adopt(from: &Path, to: &Path) -> Result<()> {
    let metadata = from.symlink_metadata()?;
    std::os::unix::fs::chown(to, Some(metadata.uid()), Some(metadata.gid()))?;
    fs::set_permissions(to, metadata.permissions())?;
    let mut names = Vec::new();
    // A file system without attributes has none to hand on.
    if let Ok(length) = rustix::fs::listxattr(from, &mut [0_u8; 0]) {
        names.resize(length, 0_u8);
        let length = rustix::fs::listxattr(from, &mut names[..])?;
        names.truncate(length);
    }
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0_u8; rustix::fs::getxattr(from, name, &mut [0_u8; 0])?];
        rustix::fs::getxattr(from, name, &mut value[..])?;
        rustix::fs::setxattr(to, name, &value, rustix::fs::XattrFlags::empty())?;
    }
    Ok(())
}

/// Gives roots that could not be renamed what they had in the run.
pub(super) fn adopt_mounts(layout: &Layout) -> Result<()> {
    for Root { path, .. } in layout.roots.iter().filter(|root| root.mount) {
        adopt(&below(&layout.staged, path), path).with_context(|| format!("cannot set owner and mode of {}", path.display()))?;
    }
    Ok(())
}

/// What lies at or below `live` and is not at or below `staged`, the topmost of each.
pub(super) fn only_in(live: &Path, staged: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    let Ok(metadata) = live.symlink_metadata() else { return Ok(()) };
    match staged.symlink_metadata() {
        Err(_) => found.push(live.to_owned()),
        Ok(other) if metadata.is_dir() && other.is_dir() => {
            for name in entries(live)? {
                only_in(&live.join(&name), &staged.join(&name), found)?;
            }
        }
        // A directory where the run has none: all in it is only here.
        Ok(_) if metadata.is_dir() => found.push(live.to_owned()),
        Ok(_) => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    /// A place with something old and something new, and the way from one to the other.
    fn place(mount: bool) -> (tempfile::TempDir, Layout) {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let data = path("data");
        for (name, content) in [("data/both", "old"), ("data/only old", "old"), ("data/d/x", "old")] {
            fs::create_dir_all(path(name).parent().unwrap()).unwrap();
            fs::write(path(name), content).unwrap();
        }
        let layout = Layout {
            staged: path("staged"),
            aside: path("aside"),
            kept: path("kept"),
            roots: vec![Root { path: data.clone(), mount }, Root { path: path("gone/deep/file"), mount: false }],
        };
        for (name, content) in [("both", "new"), ("only new", "new"), ("d/x", "new")] {
            let path = below(&layout.staged, &data).join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let file = below(&layout.staged, &path("gone/deep/file"));
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, "new").unwrap();
        (directory, layout)
    }

    fn tree(root: &Path) -> Vec<String> {
        let mut lines = Vec::new();
        for name in entries(root).unwrap() {
            let path = root.join(&name);
            if path.is_dir() {
                lines.extend(tree(&path).into_iter().map(|line| format!("{}/{line}", name.display())));
            } else {
                lines.push(format!("{}={}", name.display(), fs::read_to_string(path).unwrap()));
            }
        }
        lines.sort();
        lines
    }

    /// Every prefix of the renames is a place where the process may have been killed.
    #[test]
    fn wherever_it_is_killed_it_goes_on_or_back() {
        for mount in [false, true] {
            let renames = {
                let (_directory, layout) = place(mount);
                let moves = plan(&layout).unwrap();
                moves.iter().map(|step| usize::from(step.staged.is_some()) + usize::from(step.aside.is_some())).sum::<usize>()
            };
            assert_eq!(renames, if mount { 7 } else { 3 });
            for killed_after in 0..=renames {
                for back in [false, true] {
                    let (directory, layout) = place(mount);
                    let data = directory.path().join("data");
                    let (old, new) = (tree(&data), tree(&below(&layout.staged, &data)));
                    let moves = plan(&layout).unwrap();
                    partly(&moves, killed_after);
                    if back {
                        backward(&moves).unwrap();
                        assert_eq!(tree(&data), old, "mount {mount}, killed after {killed_after}");
                        assert!(!directory.path().join("gone/deep/file").exists());
                        assert_eq!(tree(&below(&layout.staged, &data)), new);
                        backward(&moves).unwrap();
                    }
                    forward(&moves).unwrap();
                    forward(&moves).unwrap();
                    assert_eq!(tree(&data), new, "mount {mount}, killed after {killed_after}, back {back}");
                    assert_eq!(tree(&directory.path().join("gone")), ["deep/file=new"]);
                    assert_eq!(tree(&below(&layout.aside, &data)), old);
                }
            }
        }
    }

    /// The first `count` renames of `moves`.
    fn partly(moves: &[Move], mut count: usize) {
        for step in moves {
            for (from, to) in
                [step.aside.as_ref().map(|aside| (&step.live, aside)), step.staged.as_ref().map(|staged| (staged, &step.live))]
                    .into_iter()
                    .flatten()
            {
                if count == 0 {
                    return;
                }
                count -= 1;
                make_parents(to, None).unwrap();
                fs::rename(from, to).unwrap();
            }
        }
    }

    #[test]
    fn what_only_the_old_has_is_found() {
        let (directory, layout) = place(false);
        let data = directory.path().join("data");
        fs::create_dir(data.join("only new")).unwrap();
        fs::write(data.join("only new/inside"), "").unwrap();
        let mut found = Vec::new();
        only_in(&data, &below(&layout.staged, &data), &mut found).unwrap();
        found.sort();
        assert_eq!(found, [data.join("only new"), data.join("only old")]);
    }
}
