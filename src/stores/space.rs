//! Free space, asked for before it is needed.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use indicatif::BinaryBytes;

/// What is needed, added up for each file system.
#[derive(Default)]
pub struct Needed(BTreeMap<u64, (PathBuf, u64)>);

impl Needed {
    /// `bytes` more at `path`, or where it will be made.
    pub fn add(&mut self, path: &Path, bytes: u64) {
        let there =
            path.ancestors().find_map(|path| Some((path.to_owned(), path.metadata().ok()?.dev())));
        if let Some((path, device)) = there {
            self.0.entry(device).or_insert((path, 0)).1 += bytes;
        }
    }

    /// Fails if a file system has less free.
    pub fn check(&self) -> Result<()> {
        for (path, needed) in self.0.values() {
            let system = rustix::fs::statvfs(path)
                .with_context(|| format!("cannot ask for the free space of {}", path.display()))?;
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
