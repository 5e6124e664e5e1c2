//! The repository: snapshots in restic's format, each tagged with its run and part. Knows nothing of units or stages.

mod engine;
mod restic;

use std::path::Path;

use anyhow::Result;

use crate::config;

pub use engine::{Engine, Progress, Skipped, Snapshot, StoreRequest, Stored, Tolerance};

/// The engine that `config` names; `password_file` is where this process can read the password.
pub fn open(config: &config::Repository, password_file: &Path) -> Result<Box<dyn Engine>> {
    Ok(Box::new(restic::Restic::new(&config.location, password_file)))
}
