//! The walk: every entry below a root with its metadata, in parallel; beside what an earlier walk
//! saw, only what changed is looked at closer.
//!
//! In the window nothing but this costs downtime where no file system can make a snapshot: one
//! stat(2) for each entry, and for each directory one pass over its names.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use rayon::Scope;
use rustix::fs::{AtFlags, Dir, FileType, OFlags};
use rustix::io::Errno;

use crate::host::{beneath, mounts, text};

use super::entry::{Attribute, Content, Entry, Extra, Stat, Time};
use super::staging::{self, Staging};
use super::tree::{Listing, Tree};
use super::{At, Exclude, Root};

/// Threads, at least: a walk waits for the disk more than it computes.
const THREADS: usize = 8;
/// How coarse a file system's clock may be, with a wide margin.
const CLOCK: Duration = Duration::from_secs(2);
/// Bytes of the longest path that can be laid out again: PATH_MAX, limits.h(0p), without the
/// directory that it is laid out in.
const LONGEST: usize = 4096 - 256;

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
        write!(f, "{}: {}", text::path(&self.path), self.error)
    }
}

/// How to walk.
pub struct Walk<'a> {
    exclude: &'a Exclude,
    excluded: Option<Mutex<Vec<PathBuf>>>,
    /// Files that changed later than this are not trusted to be found out by their metadata.
    settled: Option<Time>,
    staging: Option<&'a Staging>,
    skipped: Mutex<Vec<Skipped>>,
    left_out: Mutex<Vec<Skipped>>,
    attributes_left_out: Mutex<Vec<Skipped>>,
}

/// From which moment on a change of a file can be told from its metadata: what was changed before
/// it was written out by the file system since, so that a later write through a mapping shows too,
/// and the clock has moved on.
///
/// Fails if the file system of `path` cannot be written out.
pub fn settled(path: &Path) -> Result<Time> {
    let (directory, name) = At::itself(path).open()?;
    let file = beneath::openat(&directory, Path::new(&name), OFlags::RDONLY | OFlags::NONBLOCK);
    let file = file.with_context(|| format!("cannot open {}", path.display()))?;
    rustix::fs::syncfs(&file)
        .with_context(|| format!("cannot write the file system of {} out", path.display()))?;
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .saturating_sub(CLOCK);
    Ok(Time {
        seconds: i64::try_from(now.as_secs()).unwrap_or(i64::MAX),
        nanoseconds: i32::try_from(now.subsec_nanos()).unwrap_or(0),
    })
}

impl<'a> Walk<'a> {
    /// Everything that is not excluded, with its content in place.
    pub fn new(exclude: &'a Exclude) -> Self {
        Self {
            exclude,
            settled: None,
            staging: None,
            excluded: None,
            skipped: Mutex::default(),
            left_out: Mutex::default(),
            attributes_left_out: Mutex::default(),
        }
    }

    /// GitLab is up: a file whose last change is not [`settled`] is recorded with a time of change
    /// that it never had, so that no later look takes it for unchanged, here or in the repository.
    #[must_use]
    pub fn while_it_changes(self, settled: Time) -> Self {
        Self { settled: Some(settled), ..self }
    }

    /// What is excluded can be asked for afterwards.
    #[must_use]
    pub fn noting_what_is_excluded(self) -> Self {
        Self { excluded: Some(Mutex::default()), ..self }
    }

    /// The content of what changed is secured there.
    #[must_use]
    pub fn securing(self, staging: &'a Staging) -> Self {
        Self { staging: Some(staging), ..self }
    }

    /// Walks `path`, which is to be found at `at`. `seen` is what the first pass saw of it.
    ///
    /// Fails if the root itself cannot be read; what else cannot is [`skipped`](Self::skipped).
    pub fn root(&self, path: &Path, at: &At, seen: Option<&Tree>) -> Result<Root> {
        let threads =
            std::thread::available_parallelism().map_or(THREADS, |count| count.get().max(THREADS));
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .context("cannot start threads")?;
        let (directory, name) = at.open()?;
        let stat = rustix::fs::statat(&directory, &name, AtFlags::SYMLINK_NOFOLLOW);
        let stat = Stat::from(&stat.with_context(|| format!("{at} cannot be read"))?);
        let directory = Arc::new(OwnedFd::from(directory));
        // Its own name, and not the snapshot's.
        let called = path.file_name().unwrap_or(OsStr::new("/")).as_bytes().to_owned();
        let earlier = seen.map(Tree::first).transpose()?;
        let inside = earlier.as_ref().and_then(|entry| entry.listing);
        let mut entry = self.entry(&directory, &name, called, path, &stat, earlier);
        let listings = Listings { walk: self, seen, tree: Mutex::new(Tree::new()) };
        if stat.kind() == FileType::Directory {
            let number = listings.number();
            entry.listing = Some(number);
            let work =
                Work { number, parent: directory, name, stat, path: path.to_owned(), seen: inside };
            pool.scope(|scope| listings.directory(scope, &work));
        }
        let mut tree = listings.tree.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut own = Listing::default();
        own.push(&entry)?;
        tree.put(0, &own);
        let device = rustix::fs::lstat(path).map_or(stat.device, |stat| Stat::from(&stat).device);
        let staged = self.staging.map(|staging| staging.held().clone());
        Ok(Root { path: path.to_owned(), at: at.clone(), staged, device, tree })
    }

    /// What was excluded so far: with a directory, all that is in it.
    pub fn excluded(&self) -> Vec<PathBuf> {
        self.excluded.as_ref().map_or_else(Vec::new, |excluded| {
            std::mem::take(&mut *excluded.lock().unwrap_or_else(PoisonError::into_inner))
        })
    }

    /// What could not be read so far.
    pub fn skipped(&self) -> Vec<Skipped> {
        std::mem::take(&mut *self.skipped.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What no backup can hold, so far: it is not missed, and should be known.
    pub fn left_out(&self) -> Vec<Skipped> {
        let mut all =
            std::mem::take(&mut *self.left_out.lock().unwrap_or_else(PoisonError::into_inner));
        all.extend(self.attributes_left_out());
        all
    }

    /// The attributes that no backup can hold, so far: a part of what is
    /// [`left_out`](Self::left_out), which then has them no more.
    pub fn attributes_left_out(&self) -> Vec<Skipped> {
        std::mem::take(
            &mut *self.attributes_left_out.lock().unwrap_or_else(PoisonError::into_inner),
        )
    }

    /// Each time anew: what the first pass saw is told by the window.
    fn leave_attributes_out(&self, path: &Path, entry: &Entry) {
        let attributes = entry.extra.iter().flat_map(|extra| &extra.attributes);
        let mut unnamed = attributes.filter(|attribute| attribute.name().is_none());
        // One line for a file: it can have thousands.
        let Some(first) = unnamed.next() else { return };
        let more = unnamed.count();
        let others = if more > 0 { format!(" and {more} more") } else { String::new() };
        let error = format!(
            "its attribute '{}'{others}, whose name is not UTF-8",
            text::bytes(&first.name)
        );
        let skipped = Skipped { path: path.to_owned(), error };
        self.attributes_left_out.lock().unwrap_or_else(PoisonError::into_inner).push(skipped);
    }

    fn skip(&self, path: PathBuf, error: &io::Error) {
        let skipped = Skipped { path, error: error.to_string() };
        self.skipped.lock().unwrap_or_else(PoisonError::into_inner).push(skipped);
    }

    /// The entry of `path`, which is `name` in `directory` and is called `called`.
    fn entry(
        &self,
        directory: &OwnedFd,
        name: &OsStr,
        called: Vec<u8>,
        path: &Path,
        stat: &Stat,
        earlier: Option<Entry>,
    ) -> Entry {
        let mut entry =
            Entry { name: called, stat: *stat, extra: None, content: Content::None, listing: None };
        if let Some(earlier) = earlier.filter(|earlier| stat.unchanged_since(&earlier.stat)) {
            entry.extra = earlier.extra;
            self.leave_attributes_out(path, &entry);
            if stat.kind() == FileType::RegularFile {
                entry.content = Content::Seen;
            }
            return entry;
        }
        match extra(directory, name, stat.kind()) {
            Ok(extra) => entry.extra = extra,
            Err(error) => self.skip(path.to_owned(), &error),
        }
        self.leave_attributes_out(path, &entry);
        if stat.kind() == FileType::RegularFile {
            entry.content = match self.staging.map(|staging| staging.secure(directory, name, stat))
            {
                None => Content::InPlace,
                Some(Ok(number)) => Content::Staged(number),
                Some(Err(error)) => {
                    self.skip(path.to_owned(), &error);
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

/// A directory that is to be listed: held by the one above it, whatever its path leads to by now.
struct Work {
    number: usize,
    parent: Arc<OwnedFd>,
    name: OsString,
    stat: Stat,
    path: PathBuf,
    /// The number of its listing in what the first pass saw.
    seen: Option<usize>,
}

/// What all directories of a walk hold; each is packed as soon as it is listed.
struct Listings<'w, 'a> {
    walk: &'w Walk<'a>,
    seen: Option<&'w Tree>,
    tree: Mutex<Tree>,
}

impl Listings<'_, '_> {
    /// A number for another directory.
    fn number(&self) -> usize {
        self.tree.lock().unwrap_or_else(PoisonError::into_inner).number()
    }

    /// Lists one directory, and has those in it listed side by side: each is a piece of work of its
    /// own, so no depth is too deep for a stack.
    fn directory<'s>(&'s self, scope: &Scope<'s>, work: &Work) {
        match self.list(scope, work) {
            Ok(listing) => {
                self.tree.lock().unwrap_or_else(PoisonError::into_inner).put(work.number, &listing)
            }
            Err(error) => self.walk.skip(work.path.clone(), &error),
        }
    }

    fn list<'s>(&'s self, scope: &Scope<'s>, work: &Work) -> io::Result<Listing> {
        let walk = self.walk;
        let handle = Arc::new(beneath::openat(
            &work.parent,
            Path::new(&work.name),
            OFlags::RDONLY | OFlags::DIRECTORY,
        )?);
        if !Stat::from(&rustix::fs::fstat(&handle)?).is_same_file(&work.stat) {
            return Err(io::Error::other("is another directory than it was"));
        }
        let mut seen = self
            .seen
            .zip(work.seen)
            .map(|(seen, number)| seen.named(number))
            .transpose()
            .map_err(staging::said)?;
        let mut listing = Listing::default();
        for bytes in names(&handle)? {
            let name = OsStr::from_bytes(&bytes);
            let path = work.path.join(name);
            let stat = match rustix::fs::statat(&handle, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => Stat::from(&stat),
                // What it is decides nothing here.
                Err(_)
                    if [false, true]
                        .into_iter()
                        .any(|is_directory| walk.exclude.matches(&path, is_directory)) =>
                {
                    continue;
                }
                // A user's own file system is nobody else's to read, and no part of GitLab's.
                Err(Errno::ACCESS) if fuse(&path) => {
                    let error =
                        "a user has mounted a file system of his own there (FUSE)".to_owned();
                    walk.left_out
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(Skipped { path, error });
                    continue;
                }
                Err(error) => {
                    walk.skip(path, &error.into());
                    continue;
                }
            };
            if stat.uid == 0 && staging::is_ours(name) {
                continue;
            }
            if walk.exclude.matches(&path, stat.kind() == FileType::Directory) {
                if let Some(excluded) = &walk.excluded {
                    excluded.lock().unwrap_or_else(PoisonError::into_inner).push(path);
                }
                continue;
            }
            if path.as_os_str().len() > LONGEST {
                let error = format!(
                    "its path has {} bytes, and a restore could not make it",
                    path.as_os_str().len()
                );
                walk.left_out
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(Skipped { path, error });
                continue;
            }
            if is_device(&stat) {
                let error = "it is a device, and a restore could not make it".to_owned();
                walk.left_out
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(Skipped { path, error });
                continue;
            }
            let earlier =
                seen.as_mut().map_or(Ok(None), |seen| seen.find(name)).map_err(staging::said)?;
            let inside = earlier.as_ref().and_then(|entry| entry.listing);
            let mut entry = walk.entry(&handle, name, bytes.clone(), &path, &stat, earlier);
            if stat.kind() == FileType::Directory {
                let number = self.number();
                entry.listing = Some(number);
                let work = Work {
                    number,
                    parent: Arc::clone(&handle),
                    name: name.to_owned(),
                    stat,
                    path,
                    seen: inside,
                };
                scope.spawn(move |scope| self.directory(scope, &work));
            }
            listing.push(&entry).map_err(staging::said)?;
        }
        Ok(listing)
    }
}

/// Whether it takes mknod(2) with a right that no unit of ours has. Anybody may make the one
/// without a number, with which overlayfs hides what is below it.
fn is_device(stat: &Stat) -> bool {
    match stat.kind() {
        FileType::BlockDevice => true,
        FileType::CharacterDevice => stat.special != 0,
        _ => false,
    }
}

/// Whether a file system of FUSE is mounted at `path`.
fn fuse(path: &Path) -> bool {
    let mounts = mounts::seen().unwrap_or_default();
    mounts
        .iter()
        .rev()
        .find(|mount| mount.target == path)
        .is_some_and(|mount| mount.kind.starts_with("fuse"))
}

/// The names in a directory, sorted as the repository sorts them.
fn names(directory: &OwnedFd) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Extended attributes, and where a symbolic link points to.
fn extra(directory: &OwnedFd, name: &OsStr, kind: FileType) -> io::Result<Option<Box<Extra>>> {
    let target = match kind {
        FileType::Symlink => {
            Some(rustix::fs::readlinkat(directory, name, Vec::new())?.into_bytes())
        }
        _ => None,
    };
    // The system calls for attributes know no directory to begin at: this is one that nobody can
    // exchange.
    let at = Path::new("/proc/self/fd").join(directory.as_fd().as_raw_fd().to_string()).join(name);
    let mut attributes = Vec::new();
    let list = match xattr::list(&at) {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => None,
        list => Some(list?),
    };
    for name in list.into_iter().flatten() {
        if let Some(value) = xattr::get(&at, &name)? {
            attributes.push(Attribute { name: name.into_vec(), value });
        }
    }
    Ok((target.is_some() || !attributes.is_empty()).then(|| Box::new(Extra { target, attributes })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_takes_a_right_of_root_s_is_left_out() {
        // A device of that kind and number.
        fn stat(mode: u32, special: u64) -> Stat {
            let now = Time { seconds: 0, nanoseconds: 0 };
            Stat {
                mode,
                uid: 0,
                gid: 0,
                size: 0,
                links: 1,
                inode: 1,
                device: 1,
                special,
                modified: now,
                changed: now,
            }
        }
        for (mode, special, expected) in [
            (0o020_666, 0x103, true),
            (0o060_660, 0x700, true),
            (0o020_000, 0, false),
            (0o010_600, 0, false),
            (0o100_644, 0, false),
        ] {
            assert_eq!(is_device(&stat(mode, special)), expected, "{mode:o}");
        }
    }
}
