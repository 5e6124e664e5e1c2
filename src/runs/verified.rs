//! How the last verify went. Written when it begins and when it ends: one that was cut off does not
//! look like one that went well.

use std::path::Path;

use anyhow::Result;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::finding::Finding;
use crate::paths;
use crate::values::RunId;

use super::record::{read_json, write_json};

/// A verify, by hand or by its unit. Its JSON is stable: fields are added, never renamed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Verified {
    /// The run; none where it could not be told.
    pub run: Option<RunId>,
    /// When it began.
    pub started: Timestamp,
    /// When it ended; none while it goes on, and if it was cut off.
    pub finished: Option<Timestamp>,
    /// Whether the run was restored into throw-away servers.
    pub drill: bool,
    /// Whether every byte of the repository was read.
    pub read_data: bool,
    /// Nothing was wrong. False before the end.
    pub ok: bool,
    /// What was wrong.
    pub wrong: Vec<Finding>,
}

impl Verified {
    /// The last one, or the one that goes on; none if there never was one.
    pub fn last() -> Result<Option<Self>> {
        read_json(Path::new(paths::VERIFIED))
    }

    /// The last one with a drill that came to its end, whatever was verified without one since.
    pub fn last_drill() -> Result<Option<Self>> {
        read_json(Path::new(paths::DRILLED))
    }

    /// Replaces the last one.
    pub fn save(&self) -> Result<()> {
        if self.drill && self.finished.is_some() {
            write_json(Path::new(paths::DRILLED), self)?;
        }
        write_json(Path::new(paths::VERIFIED), self)
    }
}
