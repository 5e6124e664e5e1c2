//! The newest complete run of this host, recorded outside of the repository: which run came before,
//! and that there was a repository.

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::paths::{self, RootDirectory};
use crate::values::RunId;

use super::record::{read_json, write_json};

/// The complete run that was made last, whatever its date says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Newest {
    /// The run.
    pub run: RunId,
    /// `[repository] location` at that time; none if an older version of this program wrote the
    /// record.
    pub location: Option<String>,
}

impl Newest {
    /// Reads the record.
    ///
    /// # Errors
    /// If the record is damaged.
    pub fn load(root: &RootDirectory) -> Result<Option<Self>> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Now { run: RunId, location: Option<String> },
            Before(RunId),
        }
        let newest = read_json(&root.at(paths::NEWEST_RUN))?.map(|written| match written {
            Written::Now { run, location } => Self { run, location },
            Written::Before(run) => Self { run, location: None },
        });
        Ok(newest)
    }

    /// Writes the record.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, root: &RootDirectory) -> Result<()> {
        write_json(&root.at(paths::NEWEST_RUN), self)
    }

    /// The error if there is no repository at `location` although a run was stored there; none if
    /// no run is known to have been stored there.
    pub fn lost(root: &RootDirectory, location: &str) -> Option<String> {
        let newest = Self::load(root).ok().flatten()?;
        let stored = match &newest.location {
            Some(of_then) => (of_then == location).then_some("was stored there")?,
            None => "was stored, there as far as is known",
        };
        Some(format!(
            "there is no repository at {location}, and run {} {stored}: is its file system \
             mounted? If it is gone for good, or elsewhere on purpose, remove {}, and a new one \
             is made",
            newest.run,
            root.at(paths::NEWEST_RUN).display()
        ))
    }
}
