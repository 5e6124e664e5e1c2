//! The record of the units that were told to end what is in progress. They still count as active
//! until they have ended.

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::record::{read_json, write_json};
use crate::host::own;
use crate::paths::{self, RootDirectory};
use crate::systemd::UnitState;

/// A unit that ends by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drained {
    unit: String,
    /// Which run of the unit: a later one is not told to end.
    invocation: String,
}

impl Drained {
    /// The unit, as it runs now.
    pub fn of(state: &UnitState) -> Self {
        Self { unit: state.name.clone(), invocation: state.invocation.clone() }
    }
}

/// The recorded units; none if there is no record.
pub fn load(root: &RootDirectory) -> Result<Vec<Drained>> {
    Ok(read_json(&root.at(paths::DRAINED))?.unwrap_or_default())
}

/// Replaces the record.
pub fn save(root: &RootDirectory, units: &[Drained]) -> Result<()> {
    write_json(&root.at(paths::DRAINED), &units)
}

/// Removes the record.
pub fn clear(root: &RootDirectory) -> Result<()> {
    own::remove(root.at(paths::DRAINED))
}
