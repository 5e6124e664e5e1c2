//! The repository, opened with the password where this process finds it.

use std::io::ErrorKind;
use std::path::Path;

use anyhow::Result;

use crate::config::Config;
use crate::host::own;
use crate::paths;
use crate::repository::{self, Engine};
use crate::units::render::credential;
use crate::values::SecretSource;

use super::secret;

/// For a unit of a run: its key is kept for the units that follow, until the run ends.
pub(super) fn in_run(config: &Config) -> Result<Box<dyn Engine>> {
    open(config, Some(Path::new(paths::REPOSITORY_KEY)))
}

/// For a command, which leaves nothing behind.
pub fn outside(config: &Config) -> Result<Box<dyn Engine>> {
    open(config, None)
}

/// The same, if there is a repository: before the first run there may be none, and no password for it either.
///
/// # Errors
/// If it cannot be told, or opened.
pub fn existing(config: &Config) -> Result<Option<Box<dyn Engine>>> {
    let location = &config.repository.location;
    let directory = Path::new(location.strip_prefix("local:").unwrap_or(location));
    // What is not there needs no password to be seen; what cannot be looked at may well be there.
    let vacant = || match own::entries(directory) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == ErrorKind::NotFound,
    };
    if directory.is_absolute() && vacant() {
        return Ok(None);
    }
    let engine = outside(config)?;
    Ok(engine.is_there()?.then_some(engine))
}

fn open(config: &Config, key_file: Option<&Path>) -> Result<Box<dyn Engine>> {
    let password = secret::file(&config.repository.password, credential::REPOSITORY)?;
    let environment = config.repository.environment_file.as_ref();
    let environment = environment.map(|path| secret::file(&SecretSource::File(path.clone()), credential::ENVIRONMENT)).transpose()?;
    repository::open(&config.repository, &password, environment.as_deref(), key_file)
}
