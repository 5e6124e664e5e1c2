//! The defaults that a layout finds on a host.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Proxy;
use crate::values::UnitName;

/// The defaults of a layout. If writers or paths are empty, they must be configured.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::config) struct Defaults {
    /// The units that can write GitLab's data.
    pub(in crate::config) writers: Vec<UnitName>,
    /// The writers that systemd must stop without their dependents. They apply to configured
    /// writers too.
    pub(in crate::config) stopped_alone: Vec<UnitName>,
    /// The services that systemd does not manage.
    pub(in crate::config) proxies: Vec<Proxy>,
    /// The PostgreSQL that comes with GitLab.
    pub(in crate::config) server: Option<Server>,
    /// The URL of the Redis server.
    pub(in crate::config) redis: Option<String>,
    /// The unit of the Redis server, if it cannot be found by the server's process.
    pub(in crate::config) redis_unit: Option<UnitName>,
    /// The data, and also configuration and secrets.
    pub(in crate::config) paths: Vec<PathBuf>,
    /// The configuration and secrets among `paths`.
    pub(in crate::config) configuration: Vec<PathBuf>,
    /// Why this layout cannot back up this GitLab.
    pub(in crate::config) refusal: Option<String>,
}

/// What a layout found on a host. Root finds it once per run, and every unit of the run uses that:
/// a helper without capabilities sees none of the files in a home directory that is closed to
/// others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFacts {
    /// The layout's name.
    pub(in crate::config) layout: String,
    pub(in crate::config) defaults: Defaults,
}

/// A PostgreSQL that comes with GitLab.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::config) struct Server {
    /// The directory of the socket.
    pub(in crate::config) host: String,
    /// The port of the server, not of a connection pooler.
    pub(in crate::config) port: u16,
    /// The superuser, both the role and the OS user.
    pub(in crate::config) user: String,
    /// The directory of the server's programs.
    pub(in crate::config) bin_dir: PathBuf,
}
