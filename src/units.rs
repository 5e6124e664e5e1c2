//! The units: planned from a validated configuration and rendered with the templates in
//! `templates/`.
//!
//! Pure: the same configuration always gives the same files. Knows no D-Bus, clock or processes.

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
