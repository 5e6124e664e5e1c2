//! The record of the silences that are to be ended. In the state directory: it outlives the run,
//! and a reboot. Holds no secret, and what is needed to end each silence, whatever became of the
//! configuration.

use std::path::Path;

use anyhow::Result;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config::monitoring::SilenceConfig;
use crate::host::own;
use crate::paths;
use crate::runs::record::{read_json, write_json};

/// The silences of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Held {
    /// When they were begun, or begun again.
    pub begun: Timestamp,
    /// When they end by themselves, those that can.
    pub until: Timestamp,
    /// When the run was over.
    pub over: Option<Timestamp>,
    /// Each of them.
    pub silences: Vec<Entry>,
    /// What did not take effect in time.
    pub late: Vec<String>,
}

/// One silence.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Entry {
    /// How to end it.
    pub silence: SilenceConfig,
    /// What the other side calls it, if it told.
    pub id: Option<String>,
    /// Whether it was ever begun, as far as is known.
    pub begun: bool,
    /// Why the last attempt to begin it failed.
    pub error: Option<String>,
}

impl Held {
    /// None if there is nothing to end.
    pub fn load() -> Result<Option<Self>> {
        read_json(Path::new(paths::SILENCES))
    }

    /// Writes it; one without silences is removed.
    pub fn save(&self) -> Result<()> {
        if !self.silences.is_empty() {
            return write_json(Path::new(paths::SILENCES), self);
        }
        own::remove(paths::SILENCES)
    }

    /// What a run should know: which silences it does not have.
    pub fn complaints(&self) -> Vec<String> {
        let missing = self.silences.iter().filter_map(|entry| {
            Some(format!("{}: {}", entry.silence.name(), entry.error.as_ref()?))
        });
        missing.chain(self.late.iter().cloned()).collect()
    }
}
