//! The staging area: empty when a run begins, gone when it ends.

use std::path::Path;

use anyhow::Result;

use crate::host::beneath::{self, Directory};
use crate::host::own;
use crate::paths;

/// Makes an empty staging area. What a run before a crash left there goes.
pub fn begin() -> Result<()> {
    end()?;
    // Others may pass through: each unit's own directory in it is closed.
    own::make_new(Path::new(paths::STAGING), 0o711)
}

/// Removes the staging area, and the repository's key with it.
pub fn end() -> Result<()> {
    [paths::REPOSITORY_KEY, paths::STAGING].into_iter().try_for_each(|path| match Directory::of(Path::new(path)) {
        Err(error) if beneath::is_missing(&error) => Ok(()),
        // What is in it is other accounts': as deep as they like.
        place => place.and_then(|(directory, name)| directory.remove(&name)),
    })
}
