//! Reading a secret where the process that uses it finds it.

use std::env;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::values::SecretSource;

/// The file that holds the secret: the unit's credential if there is one, else the file that the configuration names.
pub fn file(source: &SecretSource, credential: &str) -> Result<PathBuf> {
    if let Some(directory) = env::var_os("CREDENTIALS_DIRECTORY") {
        let path = PathBuf::from(directory).join(credential);
        if path.exists() {
            return Ok(path);
        }
    }
    match source {
        SecretSource::File(path) => Ok(path.clone()),
        SecretSource::Credential(name) => {
            bail!("the credential {credential} (from {name}) is only there in a unit with LoadCredential={credential}:{name}")
        }
    }
}

/// The secret, without the newline that editors put at its end.
pub fn read(source: &SecretSource, credential: &str) -> Result<String> {
    let path = file(source, credential)?;
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read the secret {}", path.display()))?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn only_the_last_newline_goes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        std::fs::write(&path, " a b \n\n").unwrap();
        assert_eq!(read(&SecretSource::File(path), "no-such-credential").unwrap(), " a b \n");
    }

    #[test]
    fn a_missing_credential_is_named() {
        let error = read(&SecretSource::Credential("vault".to_owned()), "no-such-credential").unwrap_err();
        assert!(error.to_string().contains("no-such-credential"));
    }
}
