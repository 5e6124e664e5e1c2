//! Unmounts snapshots.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::host::{mounts, own, process};

/// Unmounts what is mounted at `path`, if anything, and removes the directory.
pub(super) fn unmount(path: &Path) -> Result<()> {
    if mounts::seen()?.iter().any(|mount| mount.target == path) {
        process::run(Command::new("umount").arg(path))?;
    }
    own::remove_directory(path)
}
