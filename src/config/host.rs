//! The facts of a host that defaults are taken from.

use std::path::{Path, PathBuf};

use super::found::Found;
use crate::host::mounts::{self, Mount};
use crate::host::own;

/// A host seen through its file system; `root` is a plain path, so that a test's tree is as good as
/// `/`.
#[derive(Debug, Clone)]
pub struct Host {
    root: PathBuf,
    /// What somebody has found on it who could see more.
    found: Option<Found>,
}

impl Host {
    /// The host whose root directory is `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), found: None }
    }

    /// The same host, of which this is known already.
    pub fn as_found(self, found: Option<Found>) -> Self {
        Self { found, ..self }
    }

    /// What is known of it already.
    pub(super) fn found(&self) -> Option<&Found> {
        self.found.as_ref()
    }

    /// What is mounted there; none where that cannot be told, as of a tree in which nothing runs.
    pub fn mounts(&self) -> Option<Vec<Mount>> {
        mounts::read(&self.path(mounts::OWN)).ok()
    }

    /// Where those of `paths` really are that are reached through a link. Of a tree in which
    /// nothing runs it is not told: its links lead out of it.
    pub(super) fn behind_links(&self, paths: &[PathBuf]) -> Vec<PathBuf> {
        let real = |path: &PathBuf| own::canonical(path).ok().filter(|real| real != path);
        if self.root == Path::new("/") {
            paths.iter().filter_map(real).collect()
        } else {
            Vec::new()
        }
    }

    /// Where `path` (absolute) is in this host's tree.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }
}
