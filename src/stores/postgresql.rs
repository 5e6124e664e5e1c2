//! PostgreSQL: hold a snapshot of every database in the window, dump from it afterwards; load a
//! dump into a new database.
//!
//! Queries are ours (`session`); pg_dump, pg_dumpall and pg_restore do what only they can.

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
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::paths;
use crate::runs::Database;

use globals::Globals;
use session::Session;

pub use dump::dump;
pub use hold::hold;
pub use preflight::{findings, preflight};
pub use restore::load;
pub use role::{ROLE, make as make_role};
pub use store::PostgreSql;

/// The part that holds the dumps.
pub const POSTGRESQL: &str = "postgresql";

/// What the holder tells the dump.
#[derive(Debug, Serialize, Deserialize)]
struct Held {
    server_version: String,
    databases: Vec<HeldDatabase>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct HeldDatabase {
    name: String,
    snapshot: String,
    bytes: u64,
    sequences: BTreeMap<String, i64>,
    /// Where the rows of each table are, by its number.
    nodes: BTreeMap<u32, u32>,
}

/// A session that holds a database as it was in the window.
struct Holder {
    session: Session,
    pid: i32,
    /// Its tables, by their numbers: nobody can empty or rewrite them.
    tables: BTreeMap<u32, String>,
    database: HeldDatabase,
}

/// Where the dump says that it has all of a database, and what is to be known of it.
fn dumped(database: &str) -> PathBuf {
    Path::new(paths::PGSNAPSHOT).join(format!("{}.json", directory(database)))
}

/// A database's name as a file name: anything unusual percent-encoded.
fn directory(name: &str) -> String {
    let encode = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    name.bytes().map(encode).collect()
}

/// What lies in the staging area beside the dumps.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Dumped {
    pub server_version: String,
    pub databases: Vec<Database>,
    /// Absent in runs that did not record it: what they had is in globals.sql, as text for people.
    #[serde(default)]
    pub globals: Option<Globals>,
    /// What could not be dumped and is not missed, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_of_a_database_can_leave_its_directory() {
        assert_eq!(directory("gitlabhq_production"), "gitlabhq_production");
        assert_eq!(directory("../a b"), "%2E%2E%2Fa%20b");
    }
}
