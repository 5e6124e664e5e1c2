#![doc = include_str!("README.md")]
// Tests may create directories directly, and may panic.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods))]

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
pub mod machine;
pub mod monitoring;
pub mod open;
pub mod paths;
pub mod repository;
pub mod restore;
pub mod run;
pub mod runs;
pub mod schema;
pub mod stores;
pub mod systemd;
pub mod units;
pub mod values;
pub mod volume;
