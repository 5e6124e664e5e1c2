//! Removes a tree of any depth with two descriptors per thread and without recursion: each
//! subdirectory is first moved to the top directory, so that it is never deeper than two levels.
//! Several threads work in parallel, because on a file system with `discard`, each removal waits
//! for the disk.

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

/// The number of threads.
const REMOVERS: usize = 8;
/// The total number of times that a directory is emptied again.
const AGAIN: u64 = 100_000;

pub(super) fn remove(directory: &Directory, name: &OsStr) -> Result<()> {
    match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        // POSIX specifies EPERM for a directory.
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    let top = directory.below(Path::new(name))?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(REMOVERS).build()?;
    let hoist = Hoist { top: &top, prefix: random::name()?, next: AtomicU64::new(0) };
    let again = AtomicU64::new(0);
    // A process that still has the directory open may create new entries. Then it is closed to
    // other users, if possible, and emptied again.
    let is_filled_again = |error| {
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
                Err(error) if is_filled_again(error) => {
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
            Err(error) if is_filled_again(error) => {
                close(&top);
                pending = hoist.empty(&top)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Takes the ownership of a directory, and closes it to other users. Ignores errors: the directory
/// is then emptied until [`AGAIN`] is reached.
fn close(directory: &Directory) {
    let _ = rustix::fs::fchown(directory, Some(rustix::process::geteuid()), None);
    let _ = rustix::fs::fchmod(directory, Mode::RWXU);
}

/// Moves subdirectories to the top directory.
struct Hoist<'a> {
    top: &'a Directory,
    prefix: String,
    next: AtomicU64,
}

impl Hoist<'_> {
    /// Empties `directory`. Returns the names of its subdirectories, which are now in the top
    /// directory.
    fn empty(&self, directory: &Directory) -> Result<Vec<OsString>> {
        let mut found = Vec::new();
        for (name, kind) in directory.entries()? {
            if kind != FileType::Directory {
                match rustix::fs::unlinkat(directory, &name, AtFlags::empty()) {
                    Ok(()) | Err(Errno::NOENT) => continue,
                    Err(error) => return Err(said(directory, &name, error).into()),
                }
            }
            // An empty one need not be moved.
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

/// Removes a tree of directories, the innermost first. Fails if there is anything else.
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
