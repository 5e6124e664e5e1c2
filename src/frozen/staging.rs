//! Secures the content that has changed since the first pass, by cloning or copying it.

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

use crate::host::beneath::{self, Directory, KnownDirectory};
use crate::host::holes;
use crate::values::RunId;

use super::At;
use super::entry::Stat;

/// The prefix of the name of a directory with clones beside the files, before the run's ID.
const PREFIX: &str = ".gitlab-backup-";
/// The number of files in one directory.
const PER_DIRECTORY: u64 = 4096;

/// How content is secured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// The file system shares the blocks; fails if it cannot.
    Clone,
    /// The data is copied, holes stay holes: a copy needs as much disk space as the file.
    Copy,
}

/// A directory of numbered files.
pub struct Staging {
    directory: Directory,
    held: KnownDirectory,
    how: How,
    /// The number of the next file.
    next: AtomicU64,
    /// The bytes that were cloned or copied.
    bytes: AtomicU64,
    /// The directories that have been created, by their number.
    directories: Mutex<Vec<Arc<Directory>>>,
    /// Files with several hard links, by device and inode number.
    linked: Mutex<HashMap<(u64, u64), Linked>>,
}

/// A file with several hard links; the thread that meets it first secures it.
type Linked = Arc<Mutex<Option<Secured>>>;

/// A file that was secured under one of its names.
struct Secured {
    number: u64,
    stat: Stat,
}

impl Staging {
    /// Uses an empty directory. Fails if it cannot be opened or is not the one that was created.
    pub fn new(held: &KnownDirectory, how: How) -> Result<Self> {
        let directory = held.open()?;
        Ok(Self {
            directory,
            held: held.clone(),
            how,
            next: AtomicU64::default(),
            bytes: AtomicU64::default(),
            directories: Mutex::default(),
            linked: Mutex::default(),
        })
    }

    /// The directory.
    pub fn held(&self) -> &KnownDirectory {
        &self.held
    }

    /// The number of files in it, and the bytes that were cloned or copied, without holes.
    pub fn content(&self) -> (u64, u64) {
        (self.next.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }

    /// The path of a file beneath the directory, by its number.
    pub fn file(number: u64) -> PathBuf {
        Path::new(&(number / PER_DIRECTORY).to_string()).join(number.to_string())
    }

    /// Secures the content of the file `name` in `directory` and returns its number. A file with
    /// several hard links is secured once. Fails if the file is not the one of `stat` any more.
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
            self.linked
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .entry((stat.device, stat.inode))
                .or_default(),
        );
        // A thread that meets another link to the file waits here.
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
        let directory = self.numbered_directory(number / PER_DIRECTORY)?;
        // Not by `durable`: millions of files, in the window. Only the frozen view, which is
        // written when all of them are whole, names them, and they are worthless after a reboot.
        let target = directory.create(OsStr::new(&number.to_string()), 0o600).map_err(to_io)?;
        let at = || directory.path().join(number.to_string()).display().to_string();
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

    /// The directory of this number. Creates it, and those before it, if necessary.
    fn numbered_directory(&self, number: u64) -> io::Result<Arc<Directory>> {
        let mut directories = self.directories.lock().unwrap_or_else(PoisonError::into_inner);
        while (directories.len() as u64) <= number {
            let name = directories.len().to_string();
            let created = self.directory.make(OsStr::new(&name), 0o700).map_err(to_io)?;
            directories.push(Arc::new(created));
        }
        usize::try_from(number)
            .ok()
            .and_then(|number| directories.get(number))
            .cloned()
            .ok_or_else(|| io::Error::other("no such directory"))
    }
}

/// Converts an error to the type that the library expects.
pub(super) fn to_io(error: anyhow::Error) -> io::Error {
    io::Error::other(format!("{error:#}"))
}

/// Opens a file beneath `directory` for reading, if it is the file of `stat`: the owner of a
/// directory can put anything else under a name, for example a link to a file of others or a pipe
/// that never ends.
pub fn open(directory: impl AsFd, path: &Path, stat: &Stat) -> io::Result<File> {
    let file =
        beneath::openat(directory, path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
    let now = Stat::from(&rustix::fs::fstat(&file)?);
    if !now.is_same_file(stat) {
        return Err(io::Error::other("is another file than it was"));
    }
    Ok(file.into())
}

/// Plans a directory into which the content of `path` can be cloned for a run. It is on the same
/// file system, in the nearest directory above `path` that only root can change; if there is none,
/// beside `path` or in it.
///
/// Fails if the file system cannot be examined.
pub fn plan_clone_directory(path: &Path, run: &RunId) -> Result<KnownDirectory> {
    let device = |path: &Path| rustix::fs::lstat(path).map(|stat| Stat::from(&stat).device);
    // The directories above the real path, not above links of root that lead to it.
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
    KnownDirectory::planned(parent, &format!("{PREFIX}{run}-"))
}

/// Whether a name is that of a directory with clones.
pub(super) fn is_clone_directory(name: &OsStr) -> bool {
    let id = name
        .to_str()
        .and_then(|name| name.strip_prefix(PREFIX))
        .and_then(|rest| rest.rsplit_once('-'));
    id.is_some_and(|(id, _)| id.parse::<RunId>().is_ok())
}
