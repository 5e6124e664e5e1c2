//! Consistent backups of a self-managed GitLab, as systemd units.
//!
//! Dependencies point one way, from the command line to the value types:
//!
//! ```text
//! main → cli → commands → { units, executor, steps, monitoring, systemd, repository, runs } → config → values
//! ```
//!
//! - [`values`]: newtypes that can only hold what systemd, PostgreSQL or a path may hold.
//! - [`config`]: TOML → raw → validated [`config::Config`]; knows no bus and no processes.

pub mod accounts;
pub mod catalog;
pub mod cli;
pub mod commands;
pub mod config;
pub mod executor;
pub mod exit;
pub mod finding;
pub mod frozen;
pub mod host;
pub mod monitoring;
pub mod paths;
pub mod repository;
pub mod runs;
pub mod steps;
pub mod systemd;
pub mod units;
pub mod values;
pub mod volume;
