//! The files that the library stores: the roots of a view with everything below them, and the
//! directories above, in the order in which the repository sorts.
//!
//! Every path that cannot be read is recorded, because the library continues as if it did not
//! exist.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use rustic_core::{
    ErrorKind, ReadSource, ReadSourceEntry, ReadSourceOpen, RusticError, RusticResult,
};

use crate::frozen::{
    self, At, Content, Devices, Entry, Exclude, Skipped, Staging, Stat, Tree, View, ViewRoot, Walk,
};
use crate::host::beneath::Directory;
use crate::repository::Files;

use super::node::Nodes;

/// The paths that could not be read so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Skips(Arc<Mutex<Vec<Skipped>>>);

impl Skips {
    fn add(&self, path: &Path, error: &dyn std::fmt::Display) {
        let skipped = Skipped { path: path.to_owned(), error: error.to_string() };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(skipped);
    }

    pub(super) fn take(&self) -> Vec<Skipped> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The files of one store request.
pub(super) struct Source {
    /// Consumed while it is read, because it can have millions of entries.
    view: Mutex<View>,
    skips: Skips,
    left_out: Vec<Skipped>,
}

impl Source {
    /// Walks live files. Fails if a root is missing, or if a glob is invalid.
    pub(super) fn new(files: Files<'_>, skips: Skips) -> Result<Self> {
        let mut left_out = Vec::new();
        let mut view = match files {
            Files::Frozen(view) => view,
            Files::Live { paths, exclude } => {
                let exclude = Exclude::new(exclude)?;
                let walk = Walk::new(&exclude);
                let roots = paths
                    .iter()
                    .map(|path| walk.root(path, &At::itself(path), None))
                    .collect::<Result<_>>()?;
                walk.skipped().iter().for_each(|skipped| skips.add(&skipped.path, &skipped.error));
                left_out = walk.left_out();
                View { roots }
            }
        };
        view.roots.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Self { view: Mutex::new(view), skips, left_out })
    }

    /// What the walk over live files has left out; empty for a frozen view.
    pub(super) fn left_out(&self) -> &[Skipped] {
        &self.left_out
    }
}

impl ReadSource for Source {
    type Open = Open;
    type Iter = Entries;

    fn size(&self) -> RusticResult<Option<u64>> {
        Ok(None)
    }

    fn entries(&self) -> Entries {
        let view = std::mem::take(&mut *self.view.lock().unwrap_or_else(PoisonError::into_inner));
        Entries {
            roots: view.roots.into_iter(),
            reading: None,
            above: BTreeSet::new(),
            pending: Vec::new(),
            nodes: Nodes::default(),
            skips: self.skips.clone(),
        }
    }
}

/// The entries of each root in the order of a walk, after the directories above it.
pub(super) struct Entries {
    roots: std::vec::IntoIter<ViewRoot>,
    /// The current root.
    reading: Option<Reading>,
    /// The directories above roots that have been returned or are pending.
    above: BTreeSet<PathBuf>,
    /// Directories to return before the current root; the nearest is first, and returned last.
    pending: Vec<(PathBuf, Entry)>,
    nodes: Nodes,
    skips: Skips,
}

/// A root that is being read, and its remaining entries.
struct Reading {
    entries: frozen::Entries<Tree>,
    place: Arc<Place>,
    devices: Devices,
}

impl Reading {
    fn of(root: ViewRoot) -> Result<Self> {
        let (place, devices) = (Arc::new(Place::of(&root)?), root.devices()?);
        Ok(Self { entries: root.tree.into_entries(&root.path), place, devices })
    }
}

impl Entries {
    /// Makes `root` the current one, after the directories above it.
    fn enter(&mut self, root: ViewRoot) {
        let above: Vec<PathBuf> = root
            .path
            .ancestors()
            .skip(1)
            .filter(|path| path.file_name().is_some())
            .map(Path::to_owned)
            .collect();
        for path in above {
            if self.above.insert(path.clone()) {
                match self::above(&path) {
                    Ok(entry) => self.pending.push((path, entry)),
                    Err(error) => self.skips.add(&path, &format!("{error:#}")),
                }
            }
        }
        let path = root.path.clone();
        match Reading::of(root) {
            Ok(reading) => self.reading = Some(reading),
            Err(error) => self.skips.add(&path, &format!("{error:#}")),
        }
    }
}

/// The entry of a directory above a root. If it is a link, the entry is its target, through which
/// the root is found.
fn above(path: &Path) -> Result<Entry> {
    let stat =
        rustix::fs::stat(path).with_context(|| format!("{} cannot be read", path.display()))?;
    let name = path.file_name().unwrap_or(OsStr::new("/")).as_encoded_bytes().to_owned();
    Ok(Entry { name, stat: Stat::from(&stat), extra: None, content: Content::None, listing: None })
}

impl Iterator for Entries {
    type Item = RusticResult<ReadSourceEntry<Open>>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let above = self.pending.pop();
            let (path, device, entry, open) = match (above, &mut self.reading) {
                (Some((path, entry)), _) => (path, entry.stat.device, entry, None),
                (None, Some(reading)) => match reading.entries.next() {
                    Some(Ok(entry)) => {
                        let content = (entry.content != Content::None)
                            .then(|| (Arc::clone(&reading.place), entry.content));
                        (
                            reading.entries.path().to_owned(),
                            reading.devices.original(entry.stat.device),
                            entry,
                            content,
                        )
                    }
                    Some(Err(error)) => {
                        self.skips.add(&reading.place.path, &format!("{error:#}"));
                        continue;
                    }
                    None => {
                        self.reading = None;
                        continue;
                    }
                },
                (None, None) => {
                    let root = self.roots.next()?;
                    self.enter(root);
                    continue;
                }
            };
            match self.nodes.node(&entry, device) {
                Ok(node) => {
                    let open = open.map(|(place, content)| Open {
                        path: path.clone(),
                        place,
                        content,
                        stat: entry.stat,
                        skips: self.skips.clone(),
                    });
                    return Some(Ok(ReadSourceEntry { path, node, open }));
                }
                Err(error) => self.skips.add(&path, &format!("{error:#}")),
            }
        }
    }
}

/// Where the content of a root is. The directories are held open, so that nobody can replace one on
/// the way to it.
struct Place {
    path: PathBuf,
    directory: Directory,
    /// The name of the root in the directory, for files that are read in place.
    name: OsString,
    staged: Option<Directory>,
}

impl Place {
    fn of(root: &ViewRoot) -> Result<Self> {
        let (directory, name) = root.at.open()?;
        let staged = root.staged.as_ref().map(|staged| staged.open()).transpose()?;
        Ok(Self { path: root.path.clone(), directory, name, staged })
    }

    fn open(&self, path: &Path, content: Content, stat: &Stat) -> io::Result<File> {
        match (content, &self.staged) {
            (Content::InPlace, _) => {
                // If the root is a file, `inside` is empty: a slash at the end would require a
                // directory.
                let inside = path.strip_prefix(&self.path).into_iter().flatten();
                let way: PathBuf = std::iter::once(self.name.as_os_str()).chain(inside).collect();
                frozen::open(&self.directory, &way, stat)
            }
            (Content::Staged(number), Some(staged)) => staged
                .file(&Staging::file(number))
                .map_err(|error| io::Error::other(format!("{error:#}"))),
            // Expected in the repository, so it should not be opened.
            _ => Err(io::Error::other(
                "is unchanged since the first pass, but its content is not in the repository",
            )),
        }
    }
}

/// A file that the library may open.
pub(super) struct Open {
    path: PathBuf,
    place: Arc<Place>,
    content: Content,
    stat: Stat,
    skips: Skips,
}

impl ReadSourceOpen for Open {
    type Reader = Watched;

    fn open(self) -> RusticResult<Watched> {
        let opened = self.place.open(&self.path, self.content, &self.stat);
        match opened {
            Ok(file) => Ok(Watched {
                file,
                path: self.path,
                expected: self.stat.size,
                read: 0,
                skips: self.skips,
            }),
            Err(error) => {
                self.skips.add(&self.path, &error);
                Err(RusticError::new(ErrorKind::InputOutput, "not read"))
            }
        }
    }
}

/// A file that is being read. Its size must match its metadata, because a restore relies on the
/// metadata.
pub(super) struct Watched {
    file: File,
    path: PathBuf,
    expected: u64,
    read: u64,
    skips: Skips,
}

impl Read for Watched {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.file.read(buffer) {
            Ok(0) if !buffer.is_empty() && self.read != self.expected => {
                let error = format!(
                    "changed while it was read: {} bytes instead of {}",
                    self.read, self.expected
                );
                self.skips.add(&self.path, &error);
                self.expected = self.read;
                Ok(0)
            }
            Ok(count) => {
                self.read += count as u64;
                Ok(count)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                self.skips.add(&self.path, &error);
                Err(error)
            }
        }
    }
}
