//! Where a secret is kept. The secret itself is read only by the process that uses it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Where a password is kept; never the password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecretSource {
    /// A file that only root can read; units get it by `LoadCredential=ID:PATH`.
    File(PathBuf),
    /// A credential in the service manager's stores; units get it by `LoadCredential=ID:NAME`.
    Credential(String),
    /// One that systemd-creds(1) encrypted under its name; units get it by
    /// `LoadCredentialEncrypted=NAME`.
    Encrypted(String),
}
