//! Unmounting what was mounted here.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::host::{mounts, own, process};

/// Unmounts what is mounted at `path`, which then goes too; that nothing is there is no failure.
pub(super) fn unmount(path: &Path) -> Result<()> {
    if mounts::seen()?.iter().any(|mount| mount.target == path) {
        process::run(Command::new("umount").arg(path))?;
    }
    own::remove_directory(path)
}
