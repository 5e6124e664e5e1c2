//! The walk: reads the metadata of every entry below a root, in parallel. If an earlier walk
//! exists, only entries that have changed since are read further.
//!
//! If the file system cannot make a snapshot, this is the part of the capture that costs downtime:
//! one stat(2) for each entry, and one pass over the names of each directory.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use rayon::Scope;
use rustix::fs::{AtFlags, Dir, FileType, OFlags};
use rustix::io::Errno;

use crate::host::clock::Clock;
use crate::host::{beneath, mounts, text};

use super::entry::{Attribute, Content, Entry, Extra, Stat, Time};
use super::staging::{self, Staging};
use super::tree::{Listing, Tree};
use super::{At, Exclude, ViewRoot};

/// The minimum number of threads: a walk mostly waits for the disk.
const THREADS: usize = 8;
/// The coarsest resolution of a file system's clock, with a wide margin.
const CLOCK: Duration = Duration::from_secs(2);
/// The longest path that can be restored, in bytes: PATH_MAX, limits.h(0p), less the directory into
/// which it is extracted.
const LONGEST: usize = 4096 - 256;

/// A path that was left out, because it could not be read or no backup can hold it.
#[derive(Debug, Clone)]
pub struct Skipped {
    /// The path; empty if the error names it.
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

/// The options of a walk, and what it has left out so far.
pub struct Walk<'a> {
    exclude: &'a Exclude,
    /// The paths that matched `exclude`, if they are recorded.
    excluded: Option<Mutex<Vec<PathBuf>>>,
    /// A later change of a file that changed after this might not show in its metadata.
    settled: Option<Time>,
    /// Where changed content is secured.
    staging: Option<&'a Staging>,
    skipped: Mutex<Vec<Skipped>>,
    left_out: Mutex<Vec<Skipped>>,
    attributes_left_out: Mutex<Vec<Skipped>>,
}

/// Syncs the file system of `path`, and returns a time: if a file has not changed since then, any
/// later change shows in its metadata, because the clock has advanced and even a write through an
/// existing memory mapping updates the time stamps again.
///
/// Fails if the file system cannot be synced.
pub fn settled(path: &Path, clock: &dyn Clock) -> Result<Time> {
    let (directory, name) = At::itself(path).open()?;
    let file = beneath::openat(&directory, Path::new(&name), OFlags::RDONLY | OFlags::NONBLOCK);
    let file = file.with_context(|| format!("cannot open {}", path.display()))?;
    rustix::fs::syncfs(&file)
        .with_context(|| format!("cannot write the file system of {} out", path.display()))?;
    let settled = clock.now() - CLOCK;
    Ok(Time { seconds: settled.as_second(), nanoseconds: settled.subsec_nanosecond() })
}

impl<'a> Walk<'a> {
    /// Walks everything that is not excluded, and leaves the content in place.
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

    /// For a walk while GitLab is up: a file that has changed after [`settled`] is recorded with a
    /// time of change that it never had, so that it never counts as unchanged later, neither here
    /// nor in the repository.
    #[must_use]
    pub fn while_files_change(self, settled: Time) -> Self {
        Self { settled: Some(settled), ..self }
    }

    /// Records the excluded paths for [`excluded`](Self::excluded).
    #[must_use]
    pub fn recording_excluded(self) -> Self {
        Self { excluded: Some(Mutex::default()), ..self }
    }

    /// Secures the content of changed files in `staging`.
    #[must_use]
    pub fn securing(self, staging: &'a Staging) -> Self {
        Self { staging: Some(staging), ..self }
    }

    /// Walks `path`, which is read at `at`. `seen` is the tree of the first pass.
    ///
    /// Fails if the root itself cannot be read; anything else that cannot be read is
    /// [`skipped`](Self::skipped).
    pub fn root(&self, path: &Path, at: &At, seen: Option<&Tree>) -> Result<ViewRoot> {
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
        // The name of the path, not of the snapshot.
        let called = path.file_name().unwrap_or(OsStr::new("/")).as_bytes().to_owned();
        let earlier = seen.map(Tree::first).transpose()?;
        let inside = earlier.as_ref().and_then(|entry| entry.listing);
        let mut entry = self.entry(&directory, &name, called, path, &stat, earlier);
        let listings = Listings { walk: self, seen, tree: Mutex::new(Tree::new()) };
        if stat.kind() == FileType::Directory {
            let number = listings.reserve();
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
        Ok(ViewRoot { path: path.to_owned(), at: at.clone(), staged, device, tree })
    }

    /// Takes the paths that were excluded so far; a directory stands for everything in it.
    pub fn excluded(&self) -> Vec<PathBuf> {
        self.excluded.as_ref().map_or_else(Vec::new, |excluded| {
            std::mem::take(&mut *excluded.lock().unwrap_or_else(PoisonError::into_inner))
        })
    }

    /// Takes the paths that could not be read so far.
    pub fn skipped(&self) -> Vec<Skipped> {
        std::mem::take(&mut *self.skipped.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes the paths and attributes, so far, that no backup can hold. They are not an error, but
    /// are reported.
    pub fn left_out(&self) -> Vec<Skipped> {
        let mut all =
            std::mem::take(&mut *self.left_out.lock().unwrap_or_else(PoisonError::into_inner));
        all.extend(self.attributes_left_out());
        all
    }

    /// Takes the attributes, so far, that no backup can hold. [`left_out`](Self::left_out) then no
    /// longer returns them.
    pub fn attributes_left_out(&self) -> Vec<Skipped> {
        std::mem::take(
            &mut *self.attributes_left_out.lock().unwrap_or_else(PoisonError::into_inner),
        )
    }

    /// Records the attributes of an entry that no backup can hold. Unchanged files are recorded
    /// too, because the walk in the window reports those of the first pass.
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

    /// The metadata of `path`, which is `name` in `directory`; `None` if it is left out. Then the
    /// reason is recorded, except for directories with clones of this program.
    fn admit(&self, directory: &OwnedFd, name: &OsStr, path: &Path) -> Option<Stat> {
        let stat = match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Stat::from(&stat),
            Err(error) => {
                self.leave_out_unreadable(path, error);
                return None;
            }
        };
        if stat.uid == 0 && staging::is_clone_directory(name) {
            return None;
        }
        if self.exclude.matches(path, stat.kind() == FileType::Directory) {
            if let Some(excluded) = &self.excluded {
                excluded.lock().unwrap_or_else(PoisonError::into_inner).push(path.to_owned());
            }
            return None;
        }
        let length = path.as_os_str().len();
        if length > LONGEST {
            let error = format!("its path has {length} bytes, and a restore could not make it");
            self.leave_out(path.to_owned(), error);
            return None;
        }
        if is_device(&stat) {
            let error = "it is a device, and a restore could not make it".to_owned();
            self.leave_out(path.to_owned(), error);
            return None;
        }
        Some(stat)
    }

    /// Records a path whose metadata cannot be read, unless it is excluded.
    fn leave_out_unreadable(&self, path: &Path, error: Errno) {
        // Without metadata it may be a directory or not.
        let excluded =
            [false, true].into_iter().any(|is_directory| self.exclude.matches(path, is_directory));
        if excluded {
            return;
        }
        // Only the user who has mounted a FUSE file system can read it. It is not part of GitLab.
        if error == Errno::ACCESS && is_fuse_mount(path) {
            let error = "a user has mounted a file system of his own there (FUSE)".to_owned();
            self.leave_out(path.to_owned(), error);
        } else {
            self.skip(path.to_owned(), &error.into());
        }
    }

    fn skip(&self, path: PathBuf, error: &io::Error) {
        let skipped = Skipped { path, error: error.to_string() };
        self.skipped.lock().unwrap_or_else(PoisonError::into_inner).push(skipped);
    }

    fn leave_out(&self, path: PathBuf, error: String) {
        let skipped = Skipped { path, error };
        self.left_out.lock().unwrap_or_else(PoisonError::into_inner).push(skipped);
    }

    /// The entry of `path`, which is read as `name` in `directory` and stored as `called`.
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

/// A directory to list. It is opened beneath its parent, which is held by descriptor: its path may
/// lead elsewhere by now.
struct Work {
    number: usize,
    parent: Arc<OwnedFd>,
    name: OsString,
    stat: Stat,
    path: PathBuf,
    /// The number of its listing in the tree of the first pass.
    seen: Option<usize>,
}

/// The listings of a walk. Each is packed as soon as its directory is read.
struct Listings<'w, 'a> {
    walk: &'w Walk<'a>,
    seen: Option<&'w Tree>,
    tree: Mutex<Tree>,
}

impl Listings<'_, '_> {
    /// Reserves a number for the listing of a directory.
    fn reserve(&self) -> usize {
        self.tree.lock().unwrap_or_else(PoisonError::into_inner).reserve()
    }

    /// Lists one directory. The directories in it are separate tasks of the thread pool, so that no
    /// depth overflows a stack.
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
            .map_err(staging::to_io)?;
        let mut listing = Listing::default();
        for bytes in names(&handle)? {
            let name = OsStr::from_bytes(&bytes);
            let path = work.path.join(name);
            let Some(stat) = walk.admit(&handle, name, &path) else { continue };
            let earlier =
                seen.as_mut().map_or(Ok(None), |seen| seen.find(name)).map_err(staging::to_io)?;
            let inside = earlier.as_ref().and_then(|entry| entry.listing);
            let mut entry = walk.entry(&handle, name, bytes.clone(), &path, &stat, earlier);
            if stat.kind() == FileType::Directory {
                let number = self.reserve();
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
            listing.push(&entry).map_err(staging::to_io)?;
        }
        Ok(listing)
    }
}

/// Whether creating it needs CAP_MKNOD, mknod(2), which no unit has. Anybody may create the device
/// 0:0, with which overlayfs marks deleted files.
fn is_device(stat: &Stat) -> bool {
    match stat.kind() {
        FileType::BlockDevice => true,
        FileType::CharacterDevice => stat.special != 0,
        _ => false,
    }
}

/// Whether a FUSE file system is mounted at `path`.
fn is_fuse_mount(path: &Path) -> bool {
    let mounts = mounts::seen().unwrap_or_default();
    mounts
        .iter()
        .rev()
        .find(|mount| mount.target == path)
        .is_some_and(|mount| mount.kind.starts_with("fuse"))
}

/// The names in a directory, in the order of the repository.
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

/// Reads the extended attributes and the target of a symbolic link.
fn extra(directory: &OwnedFd, name: &OsStr, kind: FileType) -> io::Result<Option<Box<Extra>>> {
    let target = match kind {
        FileType::Symlink => {
            Some(rustix::fs::readlinkat(directory, name, Vec::new())?.into_bytes())
        }
        _ => None,
    };
    // The system calls for attributes take no directory descriptor. This path leads through one,
    // which nobody can replace.
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
    fn only_devices_that_need_a_capability_are_left_out() {
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
