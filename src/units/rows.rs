//! The units, one row each, with what makes its text. What several have in common is in `render/`.

pub mod capture;
pub mod deadline;
pub mod entry;
pub mod monitoring;
pub mod own;
pub mod prepare;
pub mod proxies;
pub mod restore;
pub mod stages;
pub mod store;
pub mod verify;
