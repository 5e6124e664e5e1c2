//! Unmounting what was mounted here.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::host::mounts;
use crate::process;

/// Unmounts what is mounted at `path`, which then goes too; that nothing is there is no failure.
pub(super) fn unmount(path: &Path) -> Result<()> {
    if mounts::seen()?.iter().any(|mount| mount.target == path) {
        process::run(Command::new("umount").arg(path))?;
    }
    match std::fs::remove_dir(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
