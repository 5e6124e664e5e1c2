//! GitLab installed from source below `/home/git`, as in GitLab's installation guide.

use std::path::PathBuf;

use super::{Layout, outermost};
use crate::config::declared;
use crate::config::found::Defaults;
use crate::config::host::Host;
use crate::config::unit_files::Units;

pub(super) struct Source;

/// The application server, by which the layout is recognised. GitLab used Unicorn until version 14.
const APPLICATION: [&str; 2] = ["gitlab-puma.service", "gitlab-unicorn.service"];

/// The units that can write. Gitaly is one of them, because repositories are copied as files, and
/// Workhorse, because it receives pushes and uploads.
const WRITERS: [&str; 10] = [
    "gitlab.target",
    "gitlab-puma.service",
    "gitlab-unicorn.service",
    "gitlab-sidekiq.service",
    "gitlab-workhorse.service",
    "gitlab-mailroom.service",
    "gitlab-pages.service",
    "gitlab-registry.service",
    "docker-registry.service",
    "gitlab-gitaly.service",
];

const REDIS_SOCKETS: [&str; 2] = ["/var/run/redis/redis.sock", "/run/redis/redis-server.sock"];

const DATA: [&str; 4] = [
    "/home/git/repositories",
    "/home/git/gitlab/public/uploads",
    "/home/git/gitlab/builds",
    "/home/git/gitlab/shared",
];

const CONFIGURATION: [&str; 5] = [
    // Contains secrets.yml, which decrypts values of the database.
    "/home/git/gitlab/config",
    "/home/git/gitlab/.gitlab_shell_secret",
    "/home/git/gitlab/.gitlab_workhorse_secret",
    "/home/git/gitlab-shell/config.yml",
    "/home/git/gitaly/config.toml",
];

impl Layout for Source {
    fn name(&self) -> &'static str {
        "source"
    }

    fn recognises(&self, units: &Units) -> bool {
        APPLICATION.iter().any(|name| units.find(name).is_some())
    }

    fn defaults(&self, host: &Host, units: &Units) -> Defaults {
        let mut writers: Vec<_> = WRITERS.iter().filter_map(|name| units.find(name)).collect();
        writers.extend(units.triggers_of(&writers));
        let exists = |path: &&&str| host.path(path).exists();
        let redis = match REDIS_SOCKETS.iter().find(exists) {
            Some(socket) => format!("unix://{socket}"),
            None => "redis://127.0.0.1:6379".to_owned(),
        };
        let usual: Vec<PathBuf> =
            DATA.iter().chain(&CONFIGURATION).filter(exists).map(PathBuf::from).collect();
        let paths =
            outermost(usual.iter().chain(&declared::existing_directories(host, units, &[])));
        Defaults {
            writers,
            redis: Some(redis),
            paths,
            configuration: CONFIGURATION.map(PathBuf::from).into(),
            ..Defaults::default()
        }
    }
}
