//! How GitLab was kept from writing, for the record and the manifest.

use serde::{Deserialize, Serialize};

use super::held::Search;

/// How GitLab was kept from writing.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Quiesced {
    /// In which way.
    pub how: How,
    /// The attempts to hold GitLab.
    #[serde(flatten)]
    pub search: Search,
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
