//! The places where GitLab keeps its data: one folder for each [`Store`]. A run, its manifest, a
//! verify and a restore use the trait only, and do not know which stores there are.

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
