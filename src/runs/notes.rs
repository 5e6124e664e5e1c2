//! What the admin should know when a restore is done.

use anyhow::Result;

use super::record::{read_json, write_json};
use crate::paths::{self, RootDirectory};

/// The notes of the restore that is running, or was the last.
pub fn notes(root: &RootDirectory) -> Result<Vec<String>> {
    Ok(read_json(&root.at(paths::RESTORE_NOTES))?.unwrap_or_default())
}

/// Adds one, and logs it as a warning.
pub fn note(root: &RootDirectory, text: String) -> Result<()> {
    tracing::warn!("{text}");
    let mut all = notes(root)?;
    all.push(text);
    write_json(&root.at(paths::RESTORE_NOTES), &all)
}
