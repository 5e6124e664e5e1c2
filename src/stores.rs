//! The places where GitLab keeps its data: one folder for each [`Store`]. The manifest, a verify
//! and the steps of a restore use the trait only. The units that capture a store, and the fields of
//! a restore's plan and journal, name it.

pub mod extract;
pub mod files;
pub mod inspection;
pub(crate) mod leftover;
mod moves;
pub mod postgresql;
pub mod redis;
pub mod restoration;
pub mod space;
mod store;

pub use restoration::{Asked, Refused, Restoration};
pub use store::{Contribution, Store};

/// The stores, in the order in which a restore puts them in place. PostgreSQL comes first: it is
/// the only one in which other sessions can prevent that.
pub fn all() -> [&'static dyn Store; 3] {
    [&postgresql::PostgreSql, &redis::RedisStore, &files::FileStore]
}

/// The names of the stores whose capture is dumps in the staging directory.
pub fn dumped() -> Vec<&'static str> {
    all().into_iter().filter(|store| store.is_dumped()).map(|store| store.name()).collect()
}
