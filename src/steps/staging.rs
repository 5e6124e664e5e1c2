//! The staging area: empty when a run begins, gone when it ends.

use std::fs;
use std::os::unix::fs::DirBuilderExt;

use anyhow::{Context, Result};

use crate::paths;

/// Makes an empty staging area. What a run before a crash left there goes.
pub fn begin() -> Result<()> {
    end()?;
    // Others may pass through: each unit's own directory in it is closed.
    fs::DirBuilder::new().mode(0o711).create(paths::STAGING).with_context(|| format!("cannot make {}", paths::STAGING))
}

/// Removes the staging area.
pub fn end() -> Result<()> {
    match fs::remove_dir_all(paths::STAGING) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", paths::STAGING))
        }
        _ => Ok(()),
    }
}
