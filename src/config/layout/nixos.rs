//! GitLab as NixOS's module `services.gitlab` sets it up. The module of ours says all of this
//! explicitly; the layout is for whoever does without.

use std::path::{Path, PathBuf};

use super::{Layout, outermost};
use crate::config::declared;
use crate::config::found::Defaults;
use crate::config::host::Host;
use crate::config::unit_files::Units;
use crate::values::UnitName;

pub(super) struct Nixos;

/// What only NixOS has together: everything hangs on the one, and Gitaly's unit has no prefix.
const MARKS: [&str; 3] = ["gitlab.service", "gitlab-config.service", "gitaly.service"];

/// The application server. `gitlab.target` requires it, and the oneshots `gitlab-config`,
/// `gitlab-db-config` and `gitlab-postgresql` are part of that target: a stop that systemd spreads
/// would take them along, and the start would write the configuration and its secrets anew.
const APPLICATION: &str = "gitlab.service";

/// What can write. Not the target, for the same reason.
const WRITERS: [&str; 8] = [
    APPLICATION,
    "gitlab-sidekiq.service",
    "gitlab-workhorse.service",
    "gitlab-mailroom.service",
    "gitlab-pages.service",
    "docker-registry.service",
    // Starts the registry again when it is done.
    "docker-registry-garbage-collect.service",
    "gitaly.service",
];

const REDIS_SOCKETS: [&str; 2] = ["/run/gitlab/redis.sock", "/run/redis-gitlab/redis.sock"];

const STATE: &str = "/var/gitlab/state";
/// Below the state directory.
/// With the keys that open repositories by SSH, in the home directory.
const DATA: [&str; 6] = ["repositories", "uploads", "builds", "shared", "custom_hooks", "home"];
/// Outside of it.
const REGISTRY: &str = "/var/lib/docker-registry";
/// Likewise. With `secrets.yml`: without it the database cannot be decrypted.
const CONFIGURATION: [&str; 4] =
    ["config", ".gitlab_workhorse_secret", ".gitlab_kas_secret", "gitlab_shell_secret"];

impl Layout for Nixos {
    fn name(&self) -> &'static str {
        "nixos"
    }

    fn recognises(&self, units: &Units) -> bool {
        MARKS.iter().all(|name| units.find(name).is_some())
    }

    fn defaults(&self, host: &Host, units: &Units) -> Defaults {
        let mut writers: Vec<_> = WRITERS.iter().filter_map(|name| units.find(name)).collect();
        writers.extend(units.triggers_of(&writers));
        let state = state(units);
        let below =
            |names: &[&str]| names.iter().map(|name| state.join(name)).collect::<Vec<PathBuf>>();
        let configuration = below(&CONFIGURATION);
        let usual = below(&DATA)
            .into_iter()
            .chain([PathBuf::from(REGISTRY)])
            .chain(configuration.iter().cloned());
        let declared = declared::data(host, units, &below(&["config"]));
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

/// `services.gitlab.statePath`, which Gitaly's unit tells: it works in the home directory there.
fn state(units: &Units) -> PathBuf {
    let home = units
        .value("gitaly.service", "WorkingDirectory")
        .map(PathBuf::from)
        .filter(|home| home.is_absolute());
    home.as_deref().and_then(Path::parent).map_or_else(|| PathBuf::from(STATE), Path::to_owned)
}
