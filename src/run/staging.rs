//! Creates the staging area at the start of a run, and removes it at the end.

use anyhow::Result;

use crate::config::Config;
use crate::host::beneath::{self, Directory};
use crate::host::own;
use crate::paths::{self, RootDirectory};
use crate::runs::record::write_json;

/// Creates an empty staging area. One that a crashed run has left is removed first. Also records
/// what was found on the host, for units whose sandboxes hide some of it. An invalid configuration
/// is not an error here: the executor reports it.
pub fn create(config: Result<Config>, root: &RootDirectory) -> Result<()> {
    remove(root)?;
    match config {
        Ok(config) => write_json(&root.at(paths::HOST), &config.found)?,
        Err(error) => tracing::debug!("{error:#}"),
    }
    // Other accounts may traverse it. The directories of the units in it are closed to others.
    own::make_new(&root.at(paths::STAGING), 0o711)
}

/// Removes the staging area and the cached key of the repository.
pub fn remove(root: &RootDirectory) -> Result<()> {
    let own = [root.at(paths::REPOSITORY_KEY), root.at(paths::STAGING)];
    own.iter().try_for_each(|path| match Directory::of(path) {
        Err(error) if beneath::is_missing(&error) => Ok(()),
        // Other accounts have written there, so the trees can be of any depth.
        place => place.and_then(|(directory, name)| directory.remove(&name)),
    })
}
