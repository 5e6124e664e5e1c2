//! What a layout finds on a host, whoever looks at it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Proxy;
use crate::values::UnitName;

/// What a layout supplies; empty is "must be configured" for writers and paths.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::config) struct Defaults {
    /// What can write GitLab's data.
    pub(in crate::config) writers: Vec<UnitName>,
    /// Those of them that systemd must stop without what hangs on them; named also where the
    /// writers are configured.
    pub(in crate::config) stopped_alone: Vec<UnitName>,
    /// What systemd does not manage itself.
    pub(in crate::config) proxies: Vec<Proxy>,
    /// The server that comes with it.
    pub(in crate::config) server: Option<Server>,
    /// The URL of the one Redis.
    pub(in crate::config) redis: Option<String>,
    /// The unit that runs it, where it cannot be asked for.
    pub(in crate::config) redis_unit: Option<UnitName>,
    /// The data, configuration and secrets too.
    pub(in crate::config) paths: Vec<PathBuf>,
    /// Which of them are configuration and secrets.
    pub(in crate::config) configuration: Vec<PathBuf>,
    /// Why this GitLab cannot be backed up like this.
    pub(in crate::config) refusal: Option<String>,
}

/// What was found on a host by somebody who could see all of it. Not everybody can: where GitLab's
/// home directory is closed to others, who has no capabilities sees no file of GitLab's there. So
/// it is found once, by root, and every unit of a run goes by that.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// The layout's name.
    pub(in crate::config) layout: String,
    pub(in crate::config) defaults: Defaults,
}

/// A PostgreSQL that comes with GitLab.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::config) struct Server {
    /// Its socket's directory.
    pub(in crate::config) host: String,
    /// Its own port, and not that of a pooler before it.
    pub(in crate::config) port: u16,
    /// The superuser, in it and on the host.
    pub(in crate::config) user: String,
    /// Its programs.
    pub(in crate::config) bin_dir: PathBuf,
}
