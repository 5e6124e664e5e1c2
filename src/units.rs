//! The units: planned from a validated configuration and rendered through the templates in
//! `templates/`.
//!
//! Pure: the same configuration gives the same bytes. Knows no bus, no clock and no processes.

pub mod graph;
pub mod plan;
pub mod render;
mod row;
mod rows;
mod table;
pub mod text;
mod unit;

pub use plan::Plan;
pub use render::{UnitFile, generate};
pub use unit::{Restore, Unit};
