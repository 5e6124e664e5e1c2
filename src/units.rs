//! The units: planned from a validated configuration and rendered through the templates in
//! `templates/`.
//!
//! Pure: the same configuration gives the same bytes. Knows no bus, no clock and no processes.

pub mod graph;
pub mod name;
pub mod plan;
pub mod render;
pub mod text;

pub use name::{Restore, Unit};
pub use plan::Plan;
pub use render::{UnitFile, generate};
