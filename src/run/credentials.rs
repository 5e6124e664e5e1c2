//! Checks the credentials and environment files of the units before any unit is started.

use std::io::ErrorKind;

use anyhow::{Result, bail};

use crate::config::Config;
use crate::host::secret::is_hidden;
use crate::values::SecretSource;

/// Checks that the files exist from which systemd loads credentials and environments of a run's
/// units, except the repository's password. If one is missing, a unit does not start, and systemd
/// does not say which file it was.
///
/// # Errors
/// If a file is missing. The error names it, and the setting that refers to it.
pub fn ensure_files_exist(config: &Config) -> Result<()> {
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
        // A file that the sandbox hides from the executor is open to the service manager. It need
        // not be a regular file: systemd also loads credentials from a socket.
        match path.metadata() {
            _ if is_hidden(path) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {
                bail!("{} does not exist: {section} {key} names it", path.display())
            }
            Ok(metadata) if metadata.is_dir() => {
                bail!("{} is a directory: {section} {key} names it", path.display())
            }
            _ => {}
        }
    }
    Ok(())
}
