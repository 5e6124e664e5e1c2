//! What is known of runs: the record that a run keeps of itself in the state directory, and the manifest that makes it complete.

mod manifest;
mod record;

pub use manifest::{Component, Manifest, Part};
pub use record::{Downtime, Failure, Outcome, Record};
pub(crate) use record::{read_json, write_json};
