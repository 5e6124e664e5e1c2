//! The drill: a real restore into servers that are started for it and thrown away.
//!
//! They listen on sockets in directories of their own, never on a port, run confined as an account
//! that owns nothing, and end with this process.

mod postgresql;
mod redis;
mod server;

pub(super) use postgresql::restore as postgresql;
pub(super) use redis::load as redis;
