//! The facts of a host that supply defaults.

use std::path::{Path, PathBuf};

use super::found::HostFacts;
use crate::host::mounts::{self, Mount};
use crate::host::own;

/// A host, seen through its file system. Tests pass the root of a directory tree instead of `/`.
#[derive(Debug, Clone)]
pub struct Host {
    root: PathBuf,
    /// What root found on the host, if this process cannot see all of it.
    found: Option<HostFacts>,
}

impl Host {
    /// The host whose root directory is `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), found: None }
    }

    /// The same host, with what root found on it before.
    pub fn with_found(self, found: Option<HostFacts>) -> Self {
        Self { found, ..self }
    }

    /// What root found on the host before.
    pub(super) fn found(&self) -> Option<&HostFacts> {
        self.found.as_ref()
    }

    /// The host's mounts; `None` if they cannot be read, as in a test's directory tree.
    pub fn mounts(&self) -> Option<Vec<Mount>> {
        mounts::read(&self.path(mounts::OWN)).ok()
    }

    /// The real paths of those `paths` that are reached through a symlink. Empty for a test's
    /// directory tree, because absolute symlinks lead out of it.
    pub(super) fn behind_links(&self, paths: &[PathBuf]) -> Vec<PathBuf> {
        let real = |path: &PathBuf| own::canonical(path).ok().filter(|real| real != path);
        if self.root == Path::new("/") {
            paths.iter().filter_map(real).collect()
        } else {
            Vec::new()
        }
    }

    /// The absolute `path` below this host's root directory.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }
}
