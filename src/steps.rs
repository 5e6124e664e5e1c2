//! What the units run: one module for each part of GitLab that a run captures.

mod notify;
pub mod postgresql;
mod process;
pub mod redis;
pub mod secret;
