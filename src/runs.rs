//! The records of runs and restores in the state directory, and the manifest that makes a run
//! complete.

pub mod budget;
pub mod drained;
pub mod held;
mod manifest;
mod newest;
pub mod notes;
pub mod parts;
pub mod paused;
mod quiesced;
pub(crate) mod record;
pub mod restore;
mod verified;

pub use manifest::{Component, Database, Manifest, Part};
pub use newest::Newest;
pub use quiesced::{How, Quiesced};
pub use record::{Downtime, Failure, Kind, Outcome, Record, away, outage};
pub use verified::Verified;
