//! What a run is, from the look before it to the verify after it: what its units execute. A step
//! takes the configuration, works, and ends well or with an error that names what to do.

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
