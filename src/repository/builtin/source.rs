//! What is read: a view's roots with all below them, and the directories above, in the order in which the repository sorts.
//!
//! Everything that cannot be read is recorded, for the library goes on as if it had not been there.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use rustic_core::{ErrorKind, ReadSource, ReadSourceEntry, ReadSourceOpen, RusticError, RusticResult};

use crate::frozen::{self, Content, Entry, Exclude, Root, Skipped, Staging, Stat, View, Walk};
use crate::repository::Files;

use super::node::Nodes;

/// What could not be read so far.
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

pub(super) struct Source {
    /// Taken apart while it is read: there can be millions of entries.
    view: Mutex<View>,
    skips: Skips,
}

impl Source {
    /// Fails if a root is not there, or a glob is none.
    pub(super) fn new(files: Files<'_>, skips: Skips) -> Result<Self> {
        let mut view = match files {
            Files::Frozen(view) => view,
            Files::Live { paths, exclude } => {
                let exclude = Exclude::new(exclude)?;
                let walk = Walk::new(&exclude);
                let roots = paths.iter().map(|path| walk.root(path, path, None)).collect::<Result<_>>()?;
                walk.skipped().iter().for_each(|skipped| skips.add(&skipped.path, &skipped.error));
                View { roots }
            }
        };
        view.roots.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Self { view: Mutex::new(view), skips })
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
            above: BTreeSet::new(),
            pending: Vec::new(),
            nodes: Nodes::default(),
            skips: self.skips.clone(),
        }
    }
}

/// Each root in turn, depth first, after the directories above it.
pub(super) struct Entries {
    roots: std::vec::IntoIter<Root>,
    above: BTreeSet<PathBuf>,
    /// What comes next, last first.
    pending: Vec<Pending>,
    nodes: Nodes,
    skips: Skips,
}

struct Pending {
    path: PathBuf,
    at: PathBuf,
    staged: Option<Arc<PathBuf>>,
    device: u64,
    entry: Entry,
}

impl Entries {
    fn enter(&mut self, root: Root) {
        let Root { path, at, staged, device, entry } = root;
        let ancestors: Vec<PathBuf> = path.ancestors().skip(1).filter(|path| path.file_name().is_some()).map(Path::to_owned).collect();
        self.pending.push(Pending { path, at, staged: staged.map(Arc::new), device, entry });
        // The nearest first: it is read last.
        for path in ancestors {
            if self.above.insert(path.clone()) {
                match above(&path) {
                    Ok(entry) => self.pending.push(Pending { at: path.clone(), path, staged: None, device: entry.stat.device, entry }),
                    Err(error) => self.skips.add(&path, &format!("{error:#}")),
                }
            }
        }
    }
}

/// A directory above a root: what a link there points to, for the root is found through it.
fn above(path: &Path) -> Result<Entry> {
    let stat = rustix::fs::stat(path).with_context(|| format!("{} cannot be read", path.display()))?;
    let name = path.file_name().unwrap_or(OsStr::new("/")).as_encoded_bytes().to_owned();
    Ok(Entry { name, stat: Stat::from(&stat), extra: None, content: Content::None, children: Vec::new() })
}

impl Iterator for Entries {
    type Item = RusticResult<ReadSourceEntry<Open>>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some(Pending { path, at, staged, device, mut entry }) = self.pending.pop() else {
                let root = self.roots.next()?;
                self.enter(root);
                continue;
            };
            for child in std::mem::take(&mut entry.children).into_iter().rev() {
                let (path, at) = (path.join(child.name()), at.join(child.name()));
                self.pending.push(Pending { path, at, staged: staged.clone(), device, entry: child });
            }
            let place = match (entry.content, &staged) {
                (Content::None, _) => None,
                (Content::InPlace, _) => Some(Place::At(at)),
                (Content::Staged(number), Some(directory)) => Some(Place::Staged(Staging::file(directory, number))),
                (Content::Staged(_) | Content::Seen, _) => Some(Place::Nowhere),
            };
            match self.nodes.node(&entry, device) {
                Ok(node) => {
                    let open = place.map(|place| Open { path: path.clone(), place, stat: entry.stat, skips: self.skips.clone() });
                    return Some(Ok(ReadSourceEntry { path, node, open }));
                }
                Err(error) => self.skips.add(&path, &format!("{error:#}")),
            }
        }
    }
}

enum Place {
    At(PathBuf),
    Staged(PathBuf),
    /// In the repository, or so it was believed.
    Nowhere,
}

/// A file, not yet open.
pub(super) struct Open {
    path: PathBuf,
    place: Place,
    stat: Stat,
    skips: Skips,
}

impl ReadSourceOpen for Open {
    type Reader = Watched;

    fn open(self) -> RusticResult<Watched> {
        let opened = match &self.place {
            Place::At(at) => frozen::open(at, &self.stat),
            Place::Staged(at) => File::open(at).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", at.display()))),
            Place::Nowhere => Err(io::Error::other("is unchanged since the first pass, whose content of it is not in the repository")),
        };
        match opened {
            Ok(file) => Ok(Watched { file, path: self.path, expected: self.stat.size, read: 0, skips: self.skips }),
            Err(error) => {
                self.skips.add(&self.path, &error);
                Err(RusticError::new(ErrorKind::InputOutput, "not read"))
            }
        }
    }
}

/// A file that is read. Its size must be what its metadata said: a restore believes the metadata.
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
                let error = format!("changed while it was read: {} bytes instead of {}", self.read, self.expected);
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
