//! Where the content is secured that changed since the first pass: cloned, or copied.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use rustix::fs::OFlags;

use crate::values::RunId;

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
    /// Byte for byte.
    Copy,
}

/// A directory of numbered files.
pub struct Staging {
    directory: PathBuf,
    how: How,
    next: AtomicU64,
    bytes: AtomicU64,
    made: Mutex<u64>,
}

impl Staging {
    /// An empty one, and the directories above it. Fails if `directory` is there already, or cannot be made.
    pub fn new(directory: &Path, how: How) -> Result<Self> {
        let above = directory.parent().unwrap_or(directory);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(above).with_context(|| format!("cannot make {}", above.display()))?;
        fs::DirBuilder::new().mode(0o700).create(directory).with_context(|| format!("cannot make {}", directory.display()))?;
        Ok(Self { directory: directory.to_owned(), how, next: AtomicU64::new(0), bytes: AtomicU64::new(0), made: Mutex::new(0) })
    }

    /// Where it is.
    pub fn directory(&self) -> PathBuf {
        self.directory.clone()
    }

    /// Files and bytes in it.
    pub fn content(&self) -> (u64, u64) {
        (self.next.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }

    /// The file of a number.
    pub fn file(directory: &Path, number: u64) -> PathBuf {
        directory.join((number / CROWD).to_string()).join(number.to_string())
    }

    /// Secures a file's content and tells its number. Fails if it is no longer the file that `stat` is of.
    pub(super) fn secure(&self, at: &Path, stat: &Stat) -> io::Result<u64> {
        let source = open(at, stat)?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.crowd(number / CROWD)?;
        let path = Self::file(&self.directory, number);
        let target =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(|error| said("make", &path, &error))?;
        let bytes = match self.how {
            How::Clone if stat.size == 0 => 0,
            How::Clone => {
                rustix::fs::ioctl_ficlone(&target, &source).map_err(|error| said("clone it to", &path, &error.into()))?;
                stat.size
            }
            How::Copy => io::copy(&mut &source, &mut &target).map_err(|error| said("copy it to", &path, &error))?,
        };
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let now = Stat::from(&rustix::fs::fstat(&source)?);
        if bytes != stat.size || !now.unchanged_since(stat) {
            return Err(io::Error::other("changed while it was read in the window: something other than GitLab writes to it"));
        }
        Ok(number)
    }

    fn crowd(&self, crowd: u64) -> io::Result<()> {
        let mut made = self.made.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        while *made <= crowd {
            let path = self.directory.join(made.to_string());
            fs::DirBuilder::new().mode(0o700).create(&path).map_err(|error| said("make", &path, &error))?;
            *made += 1;
        }
        Ok(())
    }
}

fn said(what: &str, path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot {what} {}: {error}", path.display()))
}

/// Opens a file for reading, if it is the one that `stat` is of: whoever owns a directory can put something else under any name, a link to
/// another's file or a pipe that never ends.
pub fn open(at: &Path, stat: &Stat) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(i32::try_from(flags.bits()).unwrap_or(0)).open(at)?;
    let now = Stat::from(&rustix::fs::fstat(&file)?);
    if (now.inode, now.device, now.kind()) != (stat.inode, stat.device, stat.kind()) {
        return Err(io::Error::other("is another file than it was"));
    }
    Ok(file)
}

/// The directory beside `path` in which its content can be cloned for a run: on the same file system, and outside of `path` where that can be.
///
/// Fails if the file system cannot be asked.
pub fn beside(path: &Path, run: &RunId) -> io::Result<PathBuf> {
    let device = |path: &Path| rustix::fs::lstat(path).map(|stat| Stat::from(&stat).device);
    let here = device(path)?;
    let outside = path.parent().filter(|parent| device(parent).is_ok_and(|there| there == here));
    Ok(outside.unwrap_or(path).join(format!("{PREFIX}{run}")))
}

/// Directories of ours beside `path` or in it, of whichever run. Only root's: anybody may call a directory so.
pub fn leftovers(path: &Path) -> Vec<PathBuf> {
    let directories = [path.parent(), Some(path)].into_iter().flatten();
    let entries = directories.filter_map(|directory| fs::read_dir(directory).ok()).flatten().flatten();
    let ours = entries.filter(|entry| is_ours(&entry.file_name())).map(|entry| entry.path());
    ours.filter(|path| rustix::fs::lstat(path).is_ok_and(|stat| stat.st_uid == 0 && Stat::from(&stat).kind().is_dir())).collect()
}

/// Whether a name is one that we give.
pub(super) fn is_ours(name: &OsStr) -> bool {
    name.to_str().and_then(|name| name.strip_prefix(PREFIX)).is_some_and(|id| id.parse::<RunId>().is_ok())
}
