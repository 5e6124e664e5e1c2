//! The sources of secrets. Only the process that uses a secret reads it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The place of a secret, never the secret itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecretSource {
    /// A file that only root can read; units get it by `LoadCredential=ID:PATH`.
    File(PathBuf),
    /// A credential in the service manager's credential stores; units get it by
    /// `LoadCredential=ID:NAME`.
    Credential(String),
    /// A credential that systemd-creds(1) encrypted with this name; units get it by
    /// `LoadCredentialEncrypted=NAME`.
    Encrypted(String),
}
