//! GitLab as set up by the NixOS module `services.gitlab`. The NixOS module of this program sets
//! these values explicitly; the layout is for hosts that do not use it.

use std::path::{Path, PathBuf};

use super::{Layout, outermost};
use crate::config::declared;
use crate::config::found::Defaults;
use crate::config::host::Host;
use crate::config::unit_files::Units;
use crate::values::UnitName;

pub(super) struct Nixos;

/// The units that only NixOS has together: `gitlab.service` is the application server, and Gitaly's
/// unit has no prefix.
const CHARACTERISTIC: [&str; 3] = ["gitlab.service", "gitlab-config.service", "gitaly.service"];

/// The application server, stopped without its dependents. `gitlab.target` requires it, and the
/// oneshots `gitlab-config`, `gitlab-db-config` and `gitlab-postgresql` are part of that target: if
/// systemd stopped them too, their next start would rewrite the configuration and its secrets.
const APPLICATION: &str = "gitlab.service";

/// The units that can write. The target is not one of them, for the same reason.
const WRITERS: [&str; 8] = [
    APPLICATION,
    "gitlab-sidekiq.service",
    "gitlab-workhorse.service",
    "gitlab-mailroom.service",
    "gitlab-pages.service",
    "docker-registry.service",
    // Restarts the registry when it ends.
    "docker-registry-garbage-collect.service",
    "gitaly.service",
];

const REDIS_SOCKETS: [&str; 2] = ["/run/gitlab/redis.sock", "/run/redis-gitlab/redis.sock"];

const STATE: &str = "/var/gitlab/state";
/// Data, below the state directory. `home` contains the users' SSH keys.
const DATA: [&str; 6] = ["repositories", "uploads", "builds", "shared", "custom_hooks", "home"];
/// Data outside the state directory.
const REGISTRY: &str = "/var/lib/docker-registry";
/// Configuration and secrets, below the state directory. `config` contains `secrets.yml`, which
/// decrypts values of the database.
const CONFIGURATION: [&str; 4] =
    ["config", ".gitlab_workhorse_secret", ".gitlab_kas_secret", "gitlab_shell_secret"];

impl Layout for Nixos {
    fn name(&self) -> &'static str {
        "nixos"
    }

    fn recognises(&self, units: &Units) -> bool {
        CHARACTERISTIC.iter().all(|name| units.find(name).is_some())
    }

    fn defaults(&self, host: &Host, units: &Units) -> Defaults {
        let mut writers: Vec<_> = WRITERS.iter().filter_map(|name| units.find(name)).collect();
        writers.extend(units.triggers_of(&writers));
        let state = state_directory(units);
        let below =
            |names: &[&str]| names.iter().map(|name| state.join(name)).collect::<Vec<PathBuf>>();
        let configuration = below(&CONFIGURATION);
        let usual = below(&DATA)
            .into_iter()
            .chain([PathBuf::from(REGISTRY)])
            .chain(configuration.iter().cloned());
        let declared = declared::existing_directories(host, units, &below(&["config"]));
        let paths: Vec<PathBuf> =
            usual.filter(|path| host.path(path).exists()).chain(declared).collect();
        let socket = REDIS_SOCKETS
            .iter()
            .find(|socket| host.path(socket).exists())
            .unwrap_or(&REDIS_SOCKETS[0]);
        Defaults {
            writers,
            stopped_alone: UnitName::new(APPLICATION).into_iter().collect(),
            redis: Some(format!("unix://{socket}")),
            paths: outermost(paths.iter()),
            configuration,
            ..Defaults::default()
        }
    }
}

/// `services.gitlab.statePath`: the parent of the home directory, which is the working directory of
/// Gitaly's unit.
fn state_directory(units: &Units) -> PathBuf {
    let home = units
        .value("gitaly.service", "WorkingDirectory")
        .map(PathBuf::from)
        .filter(|home| home.is_absolute());
    home.as_deref().and_then(Path::parent).map_or_else(|| PathBuf::from(STATE), Path::to_owned)
}
