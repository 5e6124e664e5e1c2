//! `[monitoring.zabbix]`: a maintenance by the API, and values for trapper items.

mod api;
mod items;
mod maintenance;
mod section;
mod trapper;

pub use items::{MaintenanceItems, RunItems};
pub use maintenance::Maintenance;
pub(super) use section::{Raw, check};
pub use trapper::TrapperTls;

/// The items that `RunItems` fills, as a template for Zabbix to import.
pub const TEMPLATE: &str = include_str!("zabbix/template.yaml");
