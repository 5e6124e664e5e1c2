//! PostgreSQL: a snapshot of every database is exported while GitLab is down, and dumped from while it is up again.

mod client;
mod dump;
mod hold;
mod preflight;

use serde::{Deserialize, Serialize};

pub use dump::dump;
pub use hold::hold;
pub use preflight::preflight;

/// What [`hold`] leaves for [`dump`].
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Snapshots {
    databases: Vec<Snapshot>,
    server_version: String,
}

/// An exported snapshot; good as long as its session lives.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Snapshot {
    name: String,
    snapshot: String,
    /// The database's size on disk.
    bytes: u64,
}

/// The file in [`crate::paths::PGSNAPSHOT`].
const SNAPSHOTS: &str = "snapshots.json";
