//! The record of the silences to end. It is kept in the state directory, because it must outlast
//! the run and a reboot. It contains what is needed to end each silence even if the configuration
//! has changed, and no secret.

use anyhow::Result;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::host::own;
use crate::paths::{self, RootDirectory};
use crate::runs::record::{read_json, write_json};

use super::SilenceConfig;

/// The silences of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SilenceRecord {
    /// When they were requested, or last extended.
    pub begun: Timestamp,
    /// When they expire, as far as the system lets a silence expire.
    pub until: Timestamp,
    /// When the run ended.
    pub over: Option<Timestamp>,
    /// The silences.
    pub silences: Vec<SilenceEntry>,
    /// Those that did not take effect in time, as lines for the run's warnings.
    pub late: Vec<String>,
}

/// One silence.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SilenceEntry {
    /// The system, and what it needs to end the silence.
    pub silence: SilenceConfig,
    /// The id that the system returned.
    pub id: Option<String>,
    /// Whether a request to begin it has succeeded.
    pub begun: bool,
    /// Why the last request to begin it failed.
    pub error: Option<String>,
}

impl SilenceEntry {
    /// A silence that has not been requested yet.
    pub fn new(silence: SilenceConfig) -> Self {
        Self { silence, id: None, begun: false, error: None }
    }

    /// The name of the system.
    pub fn name(&self) -> &'static str {
        self.silence.system().name()
    }
}

impl SilenceRecord {
    /// Reads the record; none if there is no silence to end.
    pub fn load(root: &RootDirectory) -> Result<Option<Self>> {
        read_json(&root.at(paths::SILENCES))
    }

    /// Writes the record, or removes it if there is no silence to end.
    pub fn save(&self, root: &RootDirectory) -> Result<()> {
        let path = root.at(paths::SILENCES);
        if self.silences.is_empty() { own::remove(path) } else { write_json(&path, self) }
    }

    /// The silences that failed or did not take effect in time, each with the reason.
    pub fn missing(&self) -> Vec<String> {
        let failed = self
            .silences
            .iter()
            .filter_map(|entry| Some(format!("{}: {}", entry.name(), entry.error.as_ref()?)));
        failed.chain(self.late.iter().cloned()).collect()
    }
}
