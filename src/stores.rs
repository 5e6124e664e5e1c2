//! Where GitLab keeps its data: one folder, one store. A [`Store`] says what a run, its manifest, a
//! verify and a restore must know of it; they know its trait, and no store by its name.

pub mod extract;
pub mod files;
pub mod fssnapshot;
pub mod inspection;
pub(crate) mod leftover;
mod moves;
pub mod postgresql;
pub mod redis;
pub mod restoration;
pub mod space;
mod store;

pub use restoration::{Asked, Refused, Restoration};
pub use store::{Captured, Store};

/// The stores, in the order in which a restore puts them in place: first the one that others can
/// keep from it.
pub fn all() -> [&'static dyn Store; 3] {
    [&postgresql::PostgreSql, &redis::RedisStore, &files::FileStore]
}
