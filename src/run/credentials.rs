//! What units are given is looked for before they start.

use std::io::ErrorKind;

use anyhow::{Result, bail};

use crate::config::Config;
use crate::host::secret::is_hidden;
use crate::values::SecretSource;

/// Whether the files are there that the units of a run are given, but for the repository's
/// password: without one of them a unit does not even start, and systemd does not say which.
///
/// # Errors
/// With the first that is not, and what names it.
pub fn files_are_there(config: &Config) -> Result<()> {
    let database = config
        .postgresql
        .iter()
        .filter_map(|postgresql| Some(("[postgresql]".to_owned(), postgresql.password.as_ref()?)));
    let redis = config.redis.iter().filter_map(|redis| {
        Some((format!("[[redis]] '{}'", redis.name), redis.password.as_ref()?))
    });
    let passwords = database.chain(redis).filter_map(|(section, source)| match source {
        SecretSource::File(path) => Some((section, "password-file", path)),
        _ => None,
    });
    let environment = config
        .repository
        .environment_file
        .iter()
        .map(|path| ("[repository]".to_owned(), "environment-file", path));
    for (section, key, path) in environment.chain(passwords) {
        // Where the executor may not look, the service manager may. A socket is one of its ways
        // too.
        match path.metadata() {
            _ if is_hidden(path) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {
                bail!("{} is not there: {section} {key} names it", path.display())
            }
            Ok(metadata) if metadata.is_dir() => {
                bail!("{} is a directory: {section} {key} names it", path.display())
            }
            _ => {}
        }
    }
    Ok(())
}
