//! The staging area: empty when a run begins, gone when it ends.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};

use crate::host::beneath::{self, Directory};
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
    [paths::REPOSITORY_KEY, paths::STAGING].into_iter().try_for_each(|path| match Directory::of(Path::new(path)) {
        Err(error) if beneath::is_missing(&error) => Ok(()),
        // What is in it is other accounts': as deep as they like.
        place => place.and_then(|(directory, name)| directory.remove(&name)),
    })
}
