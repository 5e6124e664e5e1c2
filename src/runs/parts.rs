//! The record of the parts that the run in progress has stored.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::Part;
use super::record::{read_json, write_json};
use crate::host::own;
use crate::paths::{self, RootDirectory};

/// Records that a part is stored. The manifest lists the recorded parts.
pub fn record(root: &RootDirectory, part: &Part) -> Result<()> {
    write_json(&part_record(root, &part.name), part)
}

/// Reads the recorded parts of the run in progress, sorted by name.
pub fn read(root: &RootDirectory) -> Result<Vec<Part>> {
    let mut parts: Vec<Part> = Vec::new();
    let directory = root.at(paths::PARTS);
    let entries = own::entries(&directory);
    for entry in entries.with_context(|| format!("cannot read {}", directory.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            parts.extend(read_json::<Part>(&path)?);
        }
    }
    parts.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(parts)
}

/// Whether the part `name` is stored: by the window, or by an earlier attempt of this unit.
pub fn is_recorded(root: &RootDirectory, name: &str) -> bool {
    part_record(root, name).exists()
}

/// The file that records the part `name`.
fn part_record(root: &RootDirectory, name: &str) -> PathBuf {
    root.at(paths::PARTS).join(format!("{name}.json"))
}
