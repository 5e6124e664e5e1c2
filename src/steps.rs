//! What the units execute, one file per helper. A step takes the configuration, works, and ends well or with an error that names what to do.

pub mod alternates;
pub mod credentials;
pub mod extract;
mod failed;
pub mod files;
pub mod freeze;
pub mod fssnapshot;
pub mod installed;
pub mod links;
pub mod manifest;
pub mod mounted;
pub mod object_storage;
pub mod open;
pub mod pause;
pub mod permissions;
pub mod postgresql;
pub mod preflight;
pub mod proxy;
pub mod prune;
pub mod readiness;
pub mod redis;
pub mod report;
pub mod restore;
pub mod resume;
mod settings;
pub mod silence;
pub mod space;
pub mod staging;
pub mod storages;
pub mod strangers;
mod unstarted;
pub mod user;
pub mod verify;
pub mod window;

pub use failed::Failed;
pub use unstarted::{Unstarted, unstarted};
