//! What is known of runs: the record that a run keeps of itself in the state directory, and the
//! manifest that makes it complete; and what is known of a restore.

pub mod budget;
mod manifest;
mod newest;
pub mod notes;
pub mod paused;
pub(crate) mod record;
pub mod restore;
mod verified;

pub use manifest::{Component, Database, Manifest, Part};
pub use newest::Newest;
pub use record::{Downtime, Failure, Kind, Outcome, Record, away};
pub use verified::Verified;
