//! Back to what was there before, and away with what was laid out.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::{fs, io};

use anyhow::{Context, Result};
use jiff::Timestamp;
use rustix::fs::{Dir, FileType, Mode, OFlags};

use crate::config::Config;
use crate::paths;
use crate::runs::paused;
use crate::runs::restore::{Journal, State};
use crate::systemd::{Manager, notify};

use super::{moves, plan, redis, switch};

/// How many threads remove at once.
const REMOVERS: usize = 8;

/// The first step of a restore that has the window: what an unfinished one has replaced is put back, and the new one's journal begun.
pub async fn undo(config: &Config) -> Result<()> {
    if let Some(mut journal) = Journal::load()? {
        tracing::warn!(run = ?journal.plan.run, state = ?journal.state, "putting back what an unfinished restore has replaced");
        notify::status("putting back what an unfinished restore has replaced");
        let manager = Manager::connect().await?;
        back(config, &manager, &mut journal).await?;
        away(config, &journal).await?;
    }
    let plan = plan()?;
    if plan.run.is_none() {
        return Ok(());
    }
    let paused = paused::load()?.unwrap_or_default();
    Journal { state: State::Staging, started: Timestamp::now(), plan, paused, moves: Vec::new(), redis_moves: Vec::new() }.save()
}

/// What a restore that replaced nothing laid out is removed; what was replaced stays for [`undo`] and [`super::finish`].
pub async fn unstage(config: &Config) -> Result<()> {
    let Some(mut journal) = Journal::load()? else { return Ok(()) };
    if journal.state != State::Staging {
        return Ok(());
    }
    let manager = Manager::connect().await?;
    back(config, &manager, &mut journal).await?;
    away(config, &journal).await
}

/// Everything old in place, everything new beside.
pub(super) async fn back(config: &Config, manager: &Manager, journal: &mut Journal) -> Result<()> {
    if journal.state != State::Staging {
        redis::stop(&journal.plan, manager).await?;
        moves::backward(&journal.moves)?;
        moves::backward(&journal.redis_moves)?;
        switch::databases_back(config, &journal.plan).await?;
        rustix::fs::sync();
        journal.state = State::Staging;
        journal.save()?;
    }
    redis::start(config, &journal.plan, manager).await
}

/// Removes what was laid out, and the journal with it.
async fn away(config: &Config, journal: &Journal) -> Result<()> {
    let names: Vec<&str> = journal.plan.databases.iter().map(|database| database.staged.as_str()).collect();
    switch::drop_databases(config, &names).await?;
    for redis in &journal.plan.redis {
        let (staged, aside) = redis::directories(&journal.plan, redis);
        remove(&staged)?;
        remove_empty(&aside)?;
    }
    for layout in &journal.plan.layouts {
        remove(&layout.staged)?;
        remove_empty(&layout.aside)?;
    }
    forget_kept()?;
    Journal::clear()
}

/// Removes directories in which what was there before has been, and nothing else is.
fn remove_empty(directory: &Path) -> Result<()> {
    for name in moves::entries(directory)? {
        remove_empty(&directory.join(name))?;
    }
    match fs::remove_dir(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}: it should hold nothing any more", directory.display()))
        }
        _ => Ok(()),
    }
}

/// Removes a directory of ours, if it is there. By several threads: on a file system with `discard` each file waits for the disk.
pub(super) fn remove(directory: &Path) -> Result<()> {
    // What cannot be read or removed so is found again below, and told there.
    let subtrees = Mutex::new(subtrees(directory).unwrap_or_default());
    std::thread::scope(|scope| {
        for _ in 0..REMOVERS {
            scope.spawn(|| {
                let next = || subtrees.lock().unwrap_or_else(PoisonError::into_inner).pop();
                while let Some(subtree) = next() {
                    let _ = fs::remove_dir_all(subtree.path());
                }
            });
        }
    });
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", directory.display()))
        }
        _ => Ok(()),
    }
}

/// A directory, held by the one above it: whoever owned what is removed cannot put a link in its way.
struct Subtree {
    parent: Arc<OwnedFd>,
    name: OsString,
}

impl Subtree {
    fn path(&self) -> PathBuf {
        Path::new("/proc/self/fd").join(self.parent.as_raw_fd().to_string()).join(&self.name)
    }

    fn open(&self) -> io::Result<OwnedFd> {
        Ok(rustix::fs::openat(&*self.parent, &*self.name, directory_only(), Mode::empty())?)
    }
}

fn directory_only() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

/// Directories below `directory` that are enough for every thread, all of one depth.
fn subtrees(directory: &Path) -> io::Result<Vec<Subtree>> {
    let mut level = vec![rustix::fs::open(directory, directory_only(), Mode::empty())?];
    loop {
        let mut found = Vec::new();
        for parent in level.into_iter().map(Arc::new) {
            for entry in Dir::read_from(&*parent)? {
                let entry = entry?;
                let name = OsStr::from_bytes(entry.file_name().to_bytes());
                if entry.file_type() == FileType::Directory && name != "." && name != ".." {
                    found.push(Subtree { parent: Arc::clone(&parent), name: name.to_owned() });
                }
            }
        }
        if found.is_empty() || found.len() >= REMOVERS * 8 {
            return Ok(found);
        }
        level = found.iter().map(Subtree::open).collect::<io::Result<_>>()?;
    }
}

/// Removes the list of what is not in the run.
pub(super) fn forget_kept() -> Result<()> {
    match fs::remove_file(paths::RESTORE_KEPT) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", paths::RESTORE_KEPT))
        }
        _ => Ok(()),
    }
}
