//! The rows of all units with their rendering. `render/` contains what several units share.

pub mod capture;
pub mod deadline;
pub mod entry;
pub mod gates;
pub mod hold;
pub mod monitoring;
pub mod prepare;
pub mod proxies;
pub mod restore;
pub mod stages;
pub mod step;
pub mod store;
pub mod verify;
