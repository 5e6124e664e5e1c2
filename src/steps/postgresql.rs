//! PostgreSQL: hold a snapshot of every database in the window, dump from it afterwards.
//!
//! psql and pg_dump do the talking, so that both reach the server in the same way.

mod client;
mod dump;
mod hold;
mod preflight;

use serde::{Deserialize, Serialize};

pub use dump::dump;
pub use hold::hold;
pub use preflight::preflight;

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
}
