//! PostgreSQL. A backup exports a snapshot of every database in the window, and dumps from it when
//! GitLab is up again. A restore loads each dump into a new database.
//!
//! This program runs queries in its own sessions (`session`); it calls pg_dump, pg_dumpall and
//! pg_restore for the rest.

pub(crate) mod client;
mod drill;
mod dump;
pub(crate) mod globals;
mod hold;
pub(crate) mod load;
mod login;
mod preflight;
mod programs;
mod queue;
pub(crate) mod quoting;
mod restore;
pub(crate) mod role;
pub(crate) mod sandbox;
pub(crate) mod session;
mod store;
pub(crate) mod toc;
mod verify;
pub(crate) mod versions;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::paths::{self, RootDirectory};
use crate::runs::Database;

use globals::Globals;
use session::Session;

pub use dump::dump;
pub use hold::hold;
pub use preflight::{findings, preflight};
pub use restore::load;
pub use role::{ROLE, create as create_role};
pub use store::PostgreSql;

/// The name of the part that contains the dumps.
pub const POSTGRESQL: &str = "postgresql";

/// The exported snapshots, which [`hold`] writes to a file and [`dump`] reads.
#[derive(Debug, Serialize, Deserialize)]
struct HeldSnapshots {
    server_version: String,
    databases: Vec<HeldSnapshot>,
}

/// The exported snapshot of one database.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct HeldSnapshot {
    /// The name of the database.
    name: String,
    /// The identifier of the snapshot, for `SET TRANSACTION SNAPSHOT`.
    snapshot: String,
    /// The size of the database.
    bytes: u64,
    /// The last value of each sequence: snapshots do not include sequences.
    sequences: BTreeMap<String, i64>,
    /// The file node of each table, by the table's OID. A new file node means that the table was
    /// emptied or rewritten.
    nodes: BTreeMap<u32, u32>,
}

/// A session that holds the snapshot of a database, and locks on its tables.
struct SnapshotHolder {
    session: Session,
    pid: i32,
    /// The locked tables, by OID. While they are locked, nobody can empty or rewrite them.
    tables: BTreeMap<u32, String>,
    database: HeldSnapshot,
}

/// The file with the exported snapshots.
fn snapshots_path(root: &RootDirectory) -> PathBuf {
    root.at(paths::PGSNAPSHOT).join("snapshots.json")
}

/// The file that [`dump`] writes when a database is completely dumped. It holds what the manifest
/// records about the database.
fn record_path(root: &RootDirectory, database: &str) -> PathBuf {
    root.at(paths::PGSNAPSHOT).join(format!("{}.json", file_name(database)))
}

/// A database's name as a file name: special characters are percent-encoded.
fn file_name(name: &str) -> String {
    let encode = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    name.bytes().map(encode).collect()
}

/// The file `postgresql.json` beside the dumps.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Dumped {
    pub server_version: String,
    pub databases: Vec<Database>,
    /// Missing in the runs of early versions, which have only `globals.sql`, a text for people.
    #[serde(default)]
    pub globals: Option<Globals>,
    /// One sentence for each database that is left out without making the run incomplete.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_name_cannot_lead_to_another_directory() {
        assert_eq!(file_name("gitlabhq_production"), "gitlabhq_production");
        assert_eq!(file_name("../a b"), "%2E%2E%2Fa%20b");
    }
}
