//! Removing a tree: no recursion and two descriptors, at any depth. A directory in a directory is
//! moved up before it is emptied, so that nothing is ever deeper than two levels; several threads
//! do so side by side, for on a file system with `discard` each file waits for the disk.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use rayon::prelude::*;
use rustix::fs::{AtFlags, FileType, Mode, RenameFlags};
use rustix::io::Errno;

use super::Directory;
use crate::host::random;

/// How many threads remove at once.
const REMOVERS: usize = 8;
/// How often a directory is emptied once more, in all.
const AGAIN: u64 = 100_000;

pub(super) fn remove(directory: &Directory, name: &OsStr) -> Result<()> {
    match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        // EPERM is what POSIX says of a directory.
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    let top = directory.below(Path::new(name))?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(REMOVERS).build()?;
    let hoist = Hoist { top: &top, prefix: random::name()?, next: AtomicU64::new(0) };
    let again = AtomicU64::new(0);
    // Somebody may still have a directory open, and go on to make things in it: then once more, and
    // as root's alone, where root may.
    let goes_on = |error| {
        matches!(error, Errno::NOTEMPTY | Errno::EXIST)
            && again.fetch_add(1, Ordering::Relaxed) < AGAIN
    };
    let mut pending = hoist.empty(&top)?;
    loop {
        let one = |name: &OsString| {
            let inner = top.below(Path::new(name))?;
            let mut found = hoist.empty(&inner)?;
            match rustix::fs::unlinkat(&top, name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) if goes_on(error) => {
                    close(&inner);
                    found.push(name.clone());
                }
                Err(error) => return Err(said(&top, name, error).into()),
            }
            Ok(found)
        };
        let next: Result<Vec<Vec<OsString>>> =
            pool.install(|| pending.par_iter().map(one).collect());
        pending = next?.concat();
        if !pending.is_empty() {
            continue;
        }
        match rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(error) if goes_on(error) => {
                close(&top);
                pending = hoist.empty(&top)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Takes a directory from whom it belongs to, and closes it. That this may not be done is no
/// failure: then it is emptied as often as may be.
fn close(directory: &Directory) {
    let _ = rustix::fs::fchown(directory, Some(rustix::process::geteuid()), None);
    let _ = rustix::fs::fchmod(directory, Mode::RWXU);
}

/// Moves directories up into the topmost one.
struct Hoist<'a> {
    top: &'a Directory,
    prefix: String,
    next: AtomicU64,
}

impl Hoist<'_> {
    /// Empties `directory`; tells the directories that were in it and are now in the top one.
    fn empty(&self, directory: &Directory) -> Result<Vec<OsString>> {
        let mut found = Vec::new();
        for (name, kind) in directory.entries()? {
            if kind != FileType::Directory {
                match rustix::fs::unlinkat(directory, &name, AtFlags::empty()) {
                    Ok(()) | Err(Errno::NOENT) => continue,
                    Err(error) => return Err(said(directory, &name, error).into()),
                }
            }
            // An empty one needs no place.
            match rustix::fs::unlinkat(directory, &name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => continue,
                Err(Errno::NOTEMPTY | Errno::EXIST) => {}
                Err(error) => return Err(said(directory, &name, error).into()),
            }
            let new = OsString::from(format!(
                "{}-{}",
                self.prefix,
                self.next.fetch_add(1, Ordering::Relaxed)
            ));
            let moved = match rustix::fs::renameat_with(
                directory,
                &name,
                self.top,
                &new,
                RenameFlags::NOREPLACE,
            ) {
                Err(Errno::INVAL | Errno::NOSYS) => {
                    rustix::fs::renameat(directory, &name, self.top, &new)
                }
                moved => moved,
            };
            match moved {
                Ok(()) => found.push(new),
                Err(Errno::NOENT) => {}
                Err(error) => return Err(said(directory, &name, error).into()),
            }
        }
        Ok(found)
    }
}

fn said(directory: &Directory, name: &OsStr, error: Errno) -> io::Error {
    let error = io::Error::from(error);
    io::Error::new(error.kind(), format!("{}: {error}", directory.path().join(name).display()))
}

/// Innermost first: what holds anything else stays, and is an error.
pub(super) fn remove_empty(directory: &Directory, name: &OsStr) -> Result<()> {
    if directory.look(Path::new(name))?.is_none() {
        return Ok(());
    }
    let mut open = vec![(directory.again()?, name.to_owned(), directory.below(Path::new(name))?)];
    while let Some((above, name, inner)) = open.pop() {
        let first = inner.entries()?.into_iter().find(|(_, kind)| *kind == FileType::Directory);
        let Some((first, _)) = first else {
            rustix::fs::unlinkat(&above, &name, AtFlags::REMOVEDIR)
                .map_err(|error| said(&above, &name, error))?;
            continue;
        };
        let (here, below) = (inner.again()?, inner.below(Path::new(&first))?);
        open.push((above, name, inner));
        open.push((here, first, below));
    }
    Ok(())
}
