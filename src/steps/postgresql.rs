//! PostgreSQL: hold a snapshot of every database in the window, dump from it afterwards; load a dump into a new database.
//!
//! Queries are ours ([`session`]); pg_dump, pg_dumpall and pg_restore do what only they can.

pub(super) mod client;
mod dump;
pub(super) mod globals;
mod hold;
pub(super) mod load;
mod preflight;
mod programs;
pub(super) mod role;
pub(super) mod sandbox;
pub(super) mod session;
pub(super) mod toc;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::runs::Database;

use globals::Globals;

pub use dump::dump;
pub use hold::hold;
pub use preflight::{findings, preflight};
pub use role::{ROLE, make as make_role};

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
    /// Absent in runs that did not record it: what they had is in globals.sql, as text for people.
    #[serde(default)]
    pub globals: Option<Globals>,
    /// What could not be dumped and is not missed, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
}
