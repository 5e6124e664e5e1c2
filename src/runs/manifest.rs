//! The manifest: the last thing that a run writes, and what makes it complete.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::values::RunId;

use super::Downtime;

/// A complete run. Its JSON is stable: fields are added, never renamed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Manifest {
    /// The run.
    pub id: RunId,
    /// The host that was backed up.
    pub host: String,
    /// When the run started.
    pub started: Timestamp,
    /// When the manifest was written.
    pub finished: Timestamp,
    /// Always true: a run without a manifest is not listed.
    pub complete: bool,
    /// How long GitLab was down.
    pub downtime_seconds: f64,
    /// The same, split.
    pub downtime: Downtime,
    /// What was backed up: GitLab, PostgreSQL, each Redis, this program.
    pub versions: Vec<Component>,
    /// What is in the repository.
    pub parts: Vec<Part>,
}

/// A program and its version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Component {
    /// Its name.
    pub name: String,
    /// Its version as it tells it, `unknown` where it could not be found.
    pub version: String,
}

/// One part of a run, a snapshot of its own in the repository.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// `files`, `postgresql`, `redis`, `steps`.
    pub name: String,
    /// The snapshot's id.
    pub snapshot: String,
    /// The paths in it.
    pub paths: Vec<PathBuf>,
    /// Bytes of content.
    pub bytes: u64,
    /// Files in it.
    pub files: u64,
    /// How long storing it took.
    pub seconds: f64,
    /// `sha256-tree:ID`: the repository's hash over content and metadata of the whole part.
    pub checksum: String,
}
