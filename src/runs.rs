//! What is known of runs: the record that a run keeps of itself in the state directory, and the manifest that makes it complete.

mod manifest;
pub mod paused;
pub(crate) mod record;

pub use manifest::{Component, Database, Manifest, Part};
pub use record::{Downtime, Failure, Outcome, Record};
