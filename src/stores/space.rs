//! Checks free space before it is used.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use indicatif::BinaryBytes;

/// The bytes that are needed on each file system, by its device number.
#[derive(Default)]
pub struct Needed(BTreeMap<u64, (PathBuf, u64)>);

impl Needed {
    /// Adds `bytes` for the file system of `path`, which need not exist yet.
    pub fn add(&mut self, path: &Path, bytes: u64) {
        let existing =
            path.ancestors().find_map(|path| Some((path.to_owned(), path.metadata().ok()?.dev())));
        if let Some((path, device)) = existing {
            self.0.entry(device).or_insert((path, 0)).1 += bytes;
        }
    }

    /// Fails if a file system does not have the bytes free that are needed on it.
    pub fn check(&self) -> Result<()> {
        for (path, needed) in self.0.values() {
            let system = rustix::fs::statvfs(path)
                .with_context(|| format!("cannot read the free space of {}", path.display()))?;
            let free = system.f_bavail.saturating_mul(system.f_frsize);
            ensure!(
                free > *needed,
                "{} has {} free, but {} are needed",
                path.display(),
                BinaryBytes(free),
                BinaryBytes(*needed)
            );
        }
        Ok(())
    }
}
