//! PostgreSQL: hold a snapshot of every database in the window, dump from it afterwards; load a dump into a new database.
//!
//! psql and pg_dump do the talking, so that both reach the server in the same way.

pub(super) mod client;
mod dump;
mod hold;
pub(super) mod load;
mod preflight;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::runs::Database;

pub use dump::dump;
pub use hold::hold;
pub use preflight::{findings, preflight};

/// What the holder tells the dump.
#[derive(Debug, Serialize, Deserialize)]
struct Held {
    server_version: String,
    databases: Vec<HeldDatabase>,
}

#[derive(Debug, Serialize, Deserialize)]
struct HeldDatabase {
    name: String,
    snapshot: String,
    bytes: u64,
    sequences: BTreeMap<String, i64>,
}

/// What lies in the staging area beside the dumps.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Dumped {
    pub server_version: String,
    pub databases: Vec<Database>,
}
