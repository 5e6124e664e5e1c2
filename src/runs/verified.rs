//! The result of the last verify. It is written at the start and at the end, so that an interrupted
//! verify does not look like a success.

use anyhow::Result;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::finding::Finding;
use crate::paths::{self, RootDirectory};
use crate::values::RunId;

use super::record::{read_json, write_json};

/// A verify, by hand or by its unit. Its JSON is stable: fields are added, never renamed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Verified {
    /// The verified run; none if it could not be determined.
    pub run: Option<RunId>,
    /// When it began.
    pub started: Timestamp,
    /// When it ended; none while it is running or if it was interrupted.
    pub finished: Option<Timestamp>,
    /// Whether the run was restored into throw-away servers.
    pub drill: bool,
    /// Whether every byte of the repository was read.
    pub read_data: bool,
    /// Whether there were no errors; false before the end.
    pub ok: bool,
    /// The errors.
    pub wrong: Vec<Finding>,
}

impl Verified {
    /// The last verify, also one that is running; none if there never was one.
    pub fn last(root: &RootDirectory) -> Result<Option<Self>> {
        read_json(&root.at(paths::VERIFIED))
    }

    /// The last verify with a drill that ended.
    pub fn last_drill(root: &RootDirectory) -> Result<Option<Self>> {
        read_json(&root.at(paths::DRILLED))
    }

    /// Writes the result.
    pub fn save(&self, root: &RootDirectory) -> Result<()> {
        if self.drill && self.finished.is_some() {
            write_json(&root.at(paths::DRILLED), self)?;
        }
        write_json(&root.at(paths::VERIFIED), self)
    }
}
