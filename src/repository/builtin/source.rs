//! What is read: the roots with all below them, and the directories above, in the order in which the repository sorts.
//!
//! Everything that cannot be read is recorded, for the library goes on as if it had not been there.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use ignore::{DirEntry, Walk, WalkBuilder};
use rustic_core::repofile::NodeType;
use rustic_core::{ErrorKind, LocalSourceSaveOptions, ReadSource, ReadSourceEntry, ReadSourceOpen, RusticError, RusticResult};

use crate::repository::Skipped;

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
    roots: BTreeSet<PathBuf>,
    exclude: Exclude,
    skips: Skips,
}

impl Source {
    /// Fails if a root is not there, or a glob is none.
    pub(super) fn new(roots: &[PathBuf], exclude: &[String], skips: Skips) -> Result<Self> {
        for root in roots {
            root.symlink_metadata().with_context(|| format!("{} cannot be read", root.display()))?;
        }
        Ok(Self { roots: roots.iter().cloned().collect(), exclude: Exclude::new(exclude)?, skips })
    }
}

impl ReadSource for Source {
    type Open = Open;
    type Iter = Entries;

    fn size(&self) -> RusticResult<Option<u64>> {
        Ok(None)
    }

    fn entries(&self) -> Entries {
        let mut walks = Vec::new();
        let mut above = BTreeSet::new();
        for root in &self.roots {
            let mut ancestors: Vec<&Path> = root.ancestors().skip(1).filter(|path| path.file_name().is_some()).collect();
            ancestors.reverse();
            for ancestor in ancestors {
                if above.insert(ancestor.to_owned()) {
                    walks.push(WalkBuilder::new(ancestor).standard_filters(false).follow_links(true).max_depth(Some(0)).build());
                }
            }
            let exclude = self.exclude.clone();
            let mut walk = WalkBuilder::new(root);
            walk.standard_filters(false).sort_by_file_name(std::ffi::OsStr::cmp).filter_entry(move |entry| !exclude.matches(entry));
            walks.push(walk.build());
        }
        walks.reverse();
        Entries { walks, skips: self.skips.clone() }
    }
}

/// Each walk in turn, the next one last.
pub(super) struct Entries {
    walks: Vec<Walk>,
    skips: Skips,
}

impl Iterator for Entries {
    type Item = RusticResult<ReadSourceEntry<Open>>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some(item) = self.walks.last_mut()?.next() else {
                self.walks.pop();
                continue;
            };
            let entry = match item {
                Ok(entry) => entry,
                Err(error) => {
                    // Its text names the path.
                    self.skips.add(Path::new(""), &error);
                    continue;
                }
            };
            let path = entry.path().to_owned();
            // Its error's type is not public: text is all that can be had.
            match LocalSourceSaveOptions::default().map_entry(entry).map_err(|error| error.to_string()) {
                Ok(ReadSourceEntry { path, node, .. }) => {
                    let file = matches!(node.node_type, NodeType::File);
                    let open = file.then(|| Open { path: path.clone(), size: node.meta.size, skips: self.skips.clone() });
                    return Some(Ok(ReadSourceEntry { path, node, open }));
                }
                Err(error) => self.skips.add(&path, &error),
            }
        }
    }
}

/// A file, not yet open.
pub(super) struct Open {
    path: PathBuf,
    size: u64,
    skips: Skips,
}

impl ReadSourceOpen for Open {
    type Reader = Watched;

    fn open(self) -> RusticResult<Watched> {
        match File::open(&self.path) {
            Ok(file) => Ok(Watched { file, path: self.path, expected: self.size, read: 0, skips: self.skips }),
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

/// What is left out: a glob without a slash is a name anywhere, one that begins with a slash is a whole path, any other the end of a path.
#[derive(Debug, Clone)]
struct Exclude {
    names: GlobSet,
    paths: GlobSet,
}

impl Exclude {
    fn new(globs: &[String]) -> Result<Self> {
        let (mut names, mut paths) = (GlobSetBuilder::new(), GlobSetBuilder::new());
        for text in globs {
            let pattern = match text.trim_end_matches('/') {
                text if text.contains('/') && !text.starts_with('/') => format!("**/{text}"),
                text => text.to_owned(),
            };
            let glob = GlobBuilder::new(&pattern).literal_separator(true).build().with_context(|| format!("'{text}' is no glob"))?;
            if pattern.contains('/') {
                paths.add(glob)
            } else {
                names.add(glob)
            };
        }
        Ok(Self { names: names.build()?, paths: paths.build()? })
    }

    fn matches(&self, entry: &DirEntry) -> bool {
        self.names.is_match(entry.file_name()) || self.paths.is_match(entry.path())
    }
}
