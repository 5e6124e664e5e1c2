//! Consistent backups of a self-managed GitLab, as systemd units.
//!
//! Imports point one way, down this list; tests/layers.rs holds it against the code:
//!
//! ```text
//! cli
//! commands
//! executor
//! restore
//! run
//! gitlab stores
//! catalog monitoring open
//! repository units
//! config runs volume
//! finding frozen systemd
//! host
//! accounts exit paths values
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
pub mod gitlab;
pub mod host;
pub mod monitoring;
pub mod open;
pub mod paths;
pub mod repository;
pub mod restore;
pub mod run;
pub mod runs;
pub mod stores;
pub mod systemd;
pub mod units;
pub mod values;
pub mod volume;
