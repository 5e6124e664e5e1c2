//! Where a process finds its secrets.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::values::SecretSource;

/// The file with the secret: the unit's credential where there is one, else the file that the configuration names.
pub fn file(source: &SecretSource, credential: &str) -> Result<PathBuf> {
    let given = std::env::var_os("CREDENTIALS_DIRECTORY").map(|directory| Path::new(&directory).join(credential));
    if let Some(path) = given.filter(|path| path.exists()) {
        return Ok(path);
    }
    match source {
        SecretSource::File(path) if path.exists() => Ok(path.clone()),
        SecretSource::File(path) => bail!("{} is not there (the repository's is made by 'gitlab-backup install')", path.display()),
        SecretSource::Credential(name) => bail!("credential '{name}' is only there within a unit"),
    }
}

/// Said of a secret that only units have.
pub const OUT_OF_REACH: &str = "its password is a credential of the service manager, which only units are given: not tried";

/// Whether the secret is a credential that this process was not given.
pub fn is_out_of_reach(source: &SecretSource, credential: &str) -> bool {
    matches!(source, SecretSource::Credential(_)) && file(source, credential).is_err()
}

/// The secret, without the line end that editors leave.
pub fn read(source: &SecretSource, credential: &str) -> Result<String> {
    let path = file(source, credential)?;
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}
