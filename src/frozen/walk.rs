//! The walk: every entry below a root with its metadata, in parallel; beside what an earlier walk saw, only what changed is looked at closer.
//!
//! In the window nothing but this costs downtime where no file system can make a snapshot: one stat(2) for each entry, and for each
//! directory one pass over its names.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use rayon::prelude::*;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};

use super::entry::{Attribute, Content, Entry, Extra, Stat, Time};
use super::staging::{self, Staging};
use super::{Exclude, Root};

/// Threads, at least: a walk waits for the disk more than it computes.
const THREADS: usize = 8;
/// How coarse a file system's clock may be, with a wide margin.
const CLOCK: Duration = Duration::from_secs(2);

/// A path that could not be read.
#[derive(Debug, Clone)]
pub struct Skipped {
    /// The path; empty where the error's text names it.
    pub path: PathBuf,
    /// Why.
    pub error: String,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.as_os_str().is_empty() {
            return f.write_str(&self.error);
        }
        write!(f, "{}: {}", self.path.display(), self.error)
    }
}

/// How to walk.
pub struct Walk<'a> {
    exclude: &'a Exclude,
    /// Files that changed later than this are not trusted to be found out by their metadata.
    settled: Option<Time>,
    staging: Option<&'a Staging>,
    skipped: Mutex<Vec<Skipped>>,
}

/// From which moment on a change of a file can be told from its metadata: what was changed before it was written out by the file system
/// since, so that a later write through a mapping shows too, and the clock has moved on.
///
/// Fails if the file system of `path` cannot be written out.
pub fn settled(path: &Path) -> Result<Time> {
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())
        .with_context(|| format!("cannot open {}", path.display()))?;
    rustix::fs::syncfs(&file).with_context(|| format!("cannot write the file system of {} out", path.display()))?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().saturating_sub(CLOCK);
    Ok(Time { seconds: i64::try_from(now.as_secs()).unwrap_or(i64::MAX), nanoseconds: i32::try_from(now.subsec_nanos()).unwrap_or(0) })
}

impl<'a> Walk<'a> {
    /// Everything that is not excluded, with its content in place.
    pub fn new(exclude: &'a Exclude) -> Self {
        Self { exclude, settled: None, staging: None, skipped: Mutex::default() }
    }

    /// GitLab is up: a file whose last change is not [`settled`] is recorded with a time of change that it never had, so that no later look
    /// takes it for unchanged, here or in the repository.
    #[must_use]
    pub fn while_it_changes(self, settled: Time) -> Self {
        Self { settled: Some(settled), ..self }
    }

    /// The content of what changed is secured there.
    #[must_use]
    pub fn securing(self, staging: &'a Staging) -> Self {
        Self { staging: Some(staging), ..self }
    }

    /// Walks `path`, which is to be found at `at`. `seen` is what the first pass saw of it.
    ///
    /// Fails if the root itself cannot be read; what else cannot is [`skipped`](Self::skipped).
    pub fn root(&self, path: &Path, at: &Path, seen: Option<Entry>) -> Result<Root> {
        let threads = std::thread::available_parallelism().map_or(THREADS, |count| count.get().max(THREADS));
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().context("cannot start threads")?;
        // Its own name, and not the snapshot's.
        let name = path.file_name().unwrap_or(OsStr::new("/"));
        let stat = rustix::fs::lstat(at).with_context(|| format!("{} cannot be read", at.display()))?;
        let entry = pool.install(|| {
            let mut entry = self.entry(|_| at.to_owned(), name.as_bytes().to_owned(), &Stat::from(&stat), seen.as_ref());
            entry.children = self.children(&entry, path, at, seen);
            entry
        });
        let device = rustix::fs::lstat(path).map_or(entry.stat.device, |stat| Stat::from(&stat).device);
        Ok(Root { path: path.to_owned(), at: at.to_owned(), staged: self.staging.map(Staging::directory), device, entry })
    }

    /// What could not be read so far.
    pub fn skipped(&self) -> Vec<Skipped> {
        std::mem::take(&mut *self.skipped.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn skip(&self, path: PathBuf, error: &io::Error) {
        let skipped = Skipped { path, error: error.to_string() };
        self.skipped.lock().unwrap_or_else(PoisonError::into_inner).push(skipped);
    }

    fn children(&self, entry: &Entry, path: &Path, at: &Path, seen: Option<Entry>) -> Vec<Entry> {
        if entry.stat.kind() != FileType::Directory {
            return Vec::new();
        }
        self.directory(path, at, seen.map(|seen| seen.children).unwrap_or_default()).unwrap_or_else(|error| {
            self.skip(path.to_owned(), &error);
            Vec::new()
        })
    }

    /// One directory: its entries first, then what is below them, side by side.
    fn directory(&self, path: &Path, at: &Path, seen: Vec<Entry>) -> io::Result<Vec<Entry>> {
        let (names, handle) = names(at)?;
        let mut seen = seen.into_iter().peekable();
        let mut found: Vec<(Entry, Option<Entry>)> = Vec::with_capacity(names.len());
        for bytes in names {
            let name = OsStr::from_bytes(&bytes);
            if self.exclude.matches(path, name) {
                continue;
            }
            let stat = match rustix::fs::statat(&handle, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => Stat::from(&stat),
                Err(error) => {
                    self.skip(path.join(name), &error.into());
                    continue;
                }
            };
            if stat.uid == 0 && staging::is_ours(name) {
                continue;
            }
            while seen.next_if(|entry| entry.name() < name).is_some() {}
            let earlier = seen.next_if(|entry| entry.name() == name);
            found.push((self.entry(|name| at.join(name), bytes, &stat, earlier.as_ref()), earlier));
        }
        drop(handle);
        let below = |(mut entry, earlier): (Entry, Option<Entry>)| {
            if entry.stat.kind() == FileType::Directory {
                let name = entry.name().to_owned();
                entry.children = self.children(&entry, &path.join(&name), &at.join(&name), earlier);
            }
            entry
        };
        if found.iter().any(|(entry, _)| entry.stat.kind() == FileType::Directory) {
            return Ok(found.into_par_iter().map(below).collect());
        }
        Ok(found.into_iter().map(|(entry, _)| entry).collect())
    }

    /// `at` tells where it is: almost nothing has changed, and then nobody asks.
    fn entry(&self, at: impl FnOnce(&OsStr) -> PathBuf, name: Vec<u8>, stat: &Stat, earlier: Option<&Entry>) -> Entry {
        let mut entry = Entry { name, stat: *stat, extra: None, content: Content::None, children: Vec::new() };
        if let Some(earlier) = earlier.filter(|earlier| stat.unchanged_since(&earlier.stat)) {
            entry.extra.clone_from(&earlier.extra);
            if stat.kind() == FileType::RegularFile {
                entry.content = Content::Seen;
            }
            return entry;
        }
        let at = at(entry.name());
        match extra(&at, stat.kind()) {
            Ok(extra) => entry.extra = extra,
            Err(error) => self.skip(at.clone(), &error),
        }
        if stat.kind() == FileType::RegularFile {
            entry.content = match self.staging.map(|staging| staging.secure(&at, stat)) {
                None => Content::InPlace,
                Some(Ok(number)) => Content::Staged(number),
                Some(Err(error)) => {
                    self.skip(at, &error);
                    Content::None
                }
            };
        }
        if self.settled.is_some_and(|settled| stat.changed >= settled) {
            entry.stat.changed = entry.stat.changed.before();
        }
        entry
    }
}

/// The names in a directory, sorted as the repository sorts them, and the directory, still open.
fn names(at: &Path) -> io::Result<(Vec<Vec<u8>>, OwnedFd)> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let handle = rustix::fs::openat(CWD, at, flags, Mode::empty())?;
    let mut names = Vec::new();
    for entry in Dir::read_from(&handle)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_owned());
        }
    }
    names.sort_unstable();
    Ok((names, handle))
}

/// Extended attributes, and where a symbolic link points to.
fn extra(at: &Path, kind: FileType) -> io::Result<Option<Box<Extra>>> {
    let target = match kind {
        FileType::Symlink => Some(std::fs::read_link(at)?.into_os_string().into_encoded_bytes()),
        _ => None,
    };
    let mut attributes = Vec::new();
    let list = match xattr::list(at) {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => None,
        list => Some(list?),
    };
    for name in list.into_iter().flatten() {
        if let Some(value) = xattr::get(at, &name)? {
            attributes.push(Attribute { name: name.to_string_lossy().into_owned(), value });
        }
    }
    Ok((target.is_some() || !attributes.is_empty()).then(|| Box::new(Extra { target, attributes })))
}
