//! The staging area: empty when a run begins, gone when it ends.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result};

use crate::paths;

/// Makes an empty staging area. What a run before a crash left there goes.
pub fn begin() -> Result<()> {
    end()?;
    fs::create_dir(paths::STAGING).with_context(|| format!("cannot make {}", paths::STAGING))?;
    // Others may pass through, whatever the umask: each unit's own directory in it is closed.
    fs::set_permissions(paths::STAGING, fs::Permissions::from_mode(0o711)).with_context(|| format!("cannot open {}", paths::STAGING))
}

/// Removes the staging area, and the repository's key with it.
pub fn end() -> Result<()> {
    remove(paths::REPOSITORY_KEY, fs::remove_file(paths::REPOSITORY_KEY))?;
    remove(paths::STAGING, fs::remove_dir_all(paths::STAGING))
}

fn remove(path: &str, result: std::io::Result<()>) -> Result<()> {
    match result {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).with_context(|| format!("cannot remove {path}")),
        _ => Ok(()),
    }
}
