//! How GitLab was kept from writing, for the record and the manifest.

use serde::{Deserialize, Serialize};

use super::held::HoldAccount;

/// How GitLab was kept from writing.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Quiesced {
    /// In which way.
    pub how: How,
    /// With [`How::Held`]: the front was held until what was in progress had ended.
    #[serde(default)]
    pub front: bool,
    /// Attempts to hold GitLab that found something in progress.
    #[serde(default)]
    pub vain: u32,
    /// How long users waited in them, in seconds.
    #[serde(default)]
    pub waited: f64,
    /// With [`How::Held`]: how long background jobs waited, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub background: Option<f64>,
}

/// A way to keep GitLab from writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// Its units were stopped.
    Stopped,
    /// It was held still while nothing was in progress.
    Held,
    /// It was frozen in the middle of what it did.
    Frozen,
}

impl Quiesced {
    /// `how`, and what the attempts to hold GitLab have cost.
    pub fn of(how: How, account: &HoldAccount) -> Self {
        Self {
            how,
            front: account.front,
            vain: account.vain,
            waited: account.waited,
            background: None,
        }
    }
}
