//! Where the content is secured that changed since the first pass: cloned, or copied.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use rustix::fs::OFlags;

use crate::host::beneath::{self, Directory, Held};
use crate::host::holes;
use crate::values::RunId;

use super::At;
use super::entry::Stat;

/// What a directory of ours beside the files is called, before the run's id.
const PREFIX: &str = ".gitlab-backup-";
/// Files in a directory.
const CROWD: u64 = 4096;

/// How content is secured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// The file system shares the blocks; fails where it cannot.
    Clone,
    /// Byte for byte, but for its holes: it costs what the file has on the disk.
    Copy,
}

/// A directory of numbered files.
pub struct Staging {
    directory: Directory,
    held: Held,
    how: How,
    next: AtomicU64,
    bytes: AtomicU64,
    crowds: Mutex<Vec<Arc<Directory>>>,
    /// Files of several names, by file system and number.
    named: Mutex<HashMap<(u64, u64), Named>>,
}

/// The same for all of its names; whoever comes first secures it.
type Named = Arc<Mutex<Option<Secured>>>;

/// A file that was secured under one of its names.
struct Secured {
    number: u64,
    stat: Stat,
}

impl Staging {
    /// In a directory of ours that is empty. Fails if it cannot be opened, or is not the one that
    /// was made.
    pub fn new(held: &Held, how: How) -> Result<Self> {
        let directory = held.open()?;
        Ok(Self {
            directory,
            held: held.clone(),
            how,
            next: AtomicU64::default(),
            bytes: AtomicU64::default(),
            crowds: Mutex::default(),
            named: Mutex::default(),
        })
    }

    /// Where it is.
    pub fn held(&self) -> &Held {
        &self.held
    }

    /// Files in it, and the bytes that it took to secure them: of a copy, those outside holes.
    pub fn content(&self) -> (u64, u64) {
        (self.next.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }

    /// The file of a number, beneath the directory.
    pub fn file(number: u64) -> PathBuf {
        Path::new(&(number / CROWD).to_string()).join(number.to_string())
    }

    /// Secures the content of the file `name` in `directory` and tells its number: once, whatever
    /// the number of its names. Fails if it is no longer the file that `stat` is of.
    pub(super) fn secure(
        &self,
        directory: impl AsFd,
        name: &OsStr,
        stat: &Stat,
    ) -> io::Result<u64> {
        if stat.links < 2 {
            return self.secure_content(directory, name, stat);
        }
        let file = Arc::clone(
            self.named
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .entry((stat.device, stat.inode))
                .or_default(),
        );
        // Who comes by another name meanwhile waits for this.
        let mut secured = file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(earlier) =
            secured.as_ref().filter(|earlier| stat.unchanged_since(&earlier.stat))
        {
            return Ok(earlier.number);
        }
        let number = self.secure_content(directory, name, stat)?;
        *secured = Some(Secured { number, stat: *stat });
        Ok(number)
    }

    fn secure_content(&self, directory: impl AsFd, name: &OsStr, stat: &Stat) -> io::Result<u64> {
        let source = open(directory, Path::new(name), stat)?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let crowd = self.crowd(number / CROWD)?;
        // Not by `durable`: millions of files, in the window. Only the frozen view, which is written
        // when all of them are whole, names them, and they are worthless after a reboot.
        let target = crowd.create(OsStr::new(&number.to_string()), 0o600).map_err(said)?;
        let at = || crowd.path().join(number.to_string()).display().to_string();
        let bytes = match self.how {
            How::Clone if stat.size == 0 => 0,
            How::Clone => {
                let cloned = rustix::fs::ioctl_ficlone(&target, &source);
                cloned.map_err(|error| {
                    io::Error::new(
                        io::Error::from(error).kind(),
                        format!("cannot clone it to {}: {error}", at()),
                    )
                })?;
                stat.size
            }
            How::Copy => {
                let copied = holes::copy(&source, &target, stat.size);
                copied.map_err(|error| {
                    io::Error::new(error.kind(), format!("cannot copy it to {}: {error}", at()))
                })?
            }
        };
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let now = Stat::from(&rustix::fs::fstat(&source)?);
        if !now.unchanged_since(stat) {
            return Err(io::Error::other(
                "changed while it was read in the window: something other than GitLab writes to it",
            ));
        }
        Ok(number)
    }

    fn crowd(&self, number: u64) -> io::Result<Arc<Directory>> {
        let mut crowds = self.crowds.lock().unwrap_or_else(PoisonError::into_inner);
        while (crowds.len() as u64) <= number {
            let made =
                self.directory.make(OsStr::new(&crowds.len().to_string()), 0o700).map_err(said)?;
            crowds.push(Arc::new(made));
        }
        usize::try_from(number)
            .ok()
            .and_then(|number| crowds.get(number))
            .cloned()
            .ok_or_else(|| io::Error::other("no such directory"))
    }
}

pub(super) fn said(error: anyhow::Error) -> io::Error {
    io::Error::other(format!("{error:#}"))
}

/// Opens a file beneath `directory` for reading, if it is the one that `stat` is of: whoever owns a
/// directory can put something else under any name, a link to another's file or a pipe that never
/// ends.
pub fn open(directory: impl AsFd, path: &Path, stat: &Stat) -> io::Result<File> {
    let file =
        beneath::openat(directory, path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
    let now = Stat::from(&rustix::fs::fstat(&file)?);
    if !now.is_same_file(stat) {
        return Err(io::Error::other("is another file than it was"));
    }
    Ok(file.into())
}

/// A place for a directory in which the content of `path` can be cloned for a run: on the same file
/// system, and where nobody but root can exchange it, if there is such a place above `path`; else
/// beside it, or in it.
///
/// Fails if the file system cannot be asked.
pub fn place(path: &Path, run: &RunId) -> Result<Held> {
    let device = |path: &Path| rustix::fs::lstat(path).map(|stat| Stat::from(&stat).device);
    // What is above it is so by where it is, and not by the links of root's that lead there.
    let (above, name) = At::itself(path).open()?;
    let path = &above.real()?.join(name);
    let here = device(path).with_context(|| format!("cannot look at {}", path.display()))?;
    let same: Vec<&Path> = path
        .ancestors()
        .skip(1)
        .take_while(|above| device(above).is_ok_and(|there| there == here))
        .collect();
    let ours = same.iter().find(|above| beneath::trusted(above).is_ok());
    let parent = ours.or(same.first()).copied().unwrap_or(path);
    Held::planned(parent, &format!("{PREFIX}{run}-"))
}

/// Whether a name is one that we give.
pub(super) fn is_ours(name: &OsStr) -> bool {
    let id = name
        .to_str()
        .and_then(|name| name.strip_prefix(PREFIX))
        .and_then(|rest| rest.rsplit_once('-'));
    id.is_some_and(|(id, _)| id.parse::<RunId>().is_ok())
}
