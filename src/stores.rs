//! Where GitLab keeps its data: how each store is captured, and what a backup of it must know.

pub mod files;
pub mod fssnapshot;
pub mod postgresql;
pub mod redis;
