//! The repository, opened with the password where this process finds it.

use std::path::Path;

use anyhow::Result;

use crate::config::Config;
use crate::paths;
use crate::repository::{self, Engine};
use crate::units::render::credential;

use super::secret;

/// For a unit of a run: its key is kept for the units that follow, until the run ends.
pub(super) fn in_run(config: &Config) -> Result<Box<dyn Engine>> {
    open(config, Some(Path::new(paths::REPOSITORY_KEY)))
}

/// For a command, which leaves nothing behind.
pub fn outside(config: &Config) -> Result<Box<dyn Engine>> {
    open(config, None)
}

fn open(config: &Config, key_file: Option<&Path>) -> Result<Box<dyn Engine>> {
    let password = secret::file(&config.repository.password, credential::REPOSITORY)?;
    repository::open(&config.repository, &password, key_file)
}
