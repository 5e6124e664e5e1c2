//! The record of the parts that the run in progress has stored.

use std::path::PathBuf;

use anyhow::Result;

use super::Part;
use super::record::write_json;
use crate::paths::{self, RootDirectory};

/// Records that a part is stored. The manifest lists the recorded parts.
pub fn record(root: &RootDirectory, part: &Part) -> Result<()> {
    write_json(&part_record(root, &part.name), part)
}

/// Whether the part `name` is stored: by the window, or by an earlier attempt of this unit.
pub fn is_recorded(root: &RootDirectory, name: &str) -> bool {
    part_record(root, name).exists()
}

/// The file that records the part `name`.
fn part_record(root: &RootDirectory, name: &str) -> PathBuf {
    root.at(paths::PARTS).join(format!("{name}.json"))
}
