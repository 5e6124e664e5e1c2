//! The staging area: empty when a run begins, gone when it ends.

use std::path::Path;

use anyhow::Result;

use crate::config::Config;
use crate::host::beneath::{self, Directory};
use crate::host::own;
use crate::paths;
use crate::runs::record::write_json;

/// Makes an empty staging area. What a run before a crash left there goes. Looks at the host for
/// all that follow, who may see less of it; a configuration that cannot be used is for the executor
/// to tell.
pub fn begin(config: Result<Config>) -> Result<()> {
    end()?;
    match config {
        Ok(config) => write_json(Path::new(paths::HOST), &config.found)?,
        Err(error) => tracing::debug!("{error:#}"),
    }
    // Others may pass through: each unit's own directory in it is closed.
    own::make_new(Path::new(paths::STAGING), 0o711)
}

/// Removes the staging area, and the repository's key with it.
pub fn end() -> Result<()> {
    [paths::REPOSITORY_KEY, paths::STAGING].into_iter().try_for_each(|path| {
        match Directory::of(Path::new(path)) {
            Err(error) if beneath::is_missing(&error) => Ok(()),
            // What is in it is other accounts': as deep as they like.
            place => place.and_then(|(directory, name)| directory.remove(&name)),
        }
    })
}
