//! The steps of a run that belong to no store, from the preflight to the verify afterwards. Each
//! takes the configuration, and returns an error that says what to do.

pub mod calendar;
pub mod credentials;
mod failed;
pub mod installed;
pub mod manifest;
pub mod preflight;
pub mod prune;
pub mod report;
mod settings;
pub mod silence;
pub mod staging;
mod unstarted;
pub mod verify;

pub use failed::Failed;
pub use unstarted::{Unstarted, unstarted};
