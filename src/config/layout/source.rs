//! GitLab installed from source, with the official units.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::config::RedisAddress;
use crate::config::host::Host;

use super::Defaults;

/// What writes. gitlab.target too: it may be inactive while its services run, and its stop reaches them all.
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
/// What can start a writer again.
const ACTIVATORS: [&str; 3] = ["socket", "timer", "path"];
const SOCKETS: [&str; 2] = ["/var/run/redis/redis.sock", "/run/redis/redis-server.sock"];
/// Data, configuration and secrets.
const PATHS: [&str; 9] = [
    "/home/git/repositories",
    "/home/git/gitlab/public/uploads",
    "/home/git/gitlab/builds",
    "/home/git/gitlab/shared",
    "/home/git/gitlab/config",
    "/home/git/gitlab/.gitlab_shell_secret",
    "/home/git/gitlab/.gitlab_workhorse_secret",
    "/home/git/gitlab-shell/config.yml",
    "/home/git/gitaly/config.toml",
];

/// Whether these unit files are a source installation's.
pub(super) fn matches(units: &BTreeSet<String>) -> bool {
    units.contains("gitlab-puma.service") || units.contains("gitlab-unicorn.service")
}

/// What a source installation supplies.
pub(super) fn defaults(host: &Host, units: &BTreeSet<String>) -> Defaults {
    let mut writers: Vec<String> = Vec::new();
    for writer in WRITERS.iter().filter(|writer| units.contains(**writer)) {
        writers.push((*writer).to_owned());
        let stem = writer.rsplit_once('.').map_or(*writer, |(stem, _)| stem);
        writers.extend(ACTIVATORS.iter().map(|suffix| format!("{stem}.{suffix}")).filter(|unit| units.contains(unit)));
    }
    let socket = SOCKETS.iter().find(|path| host.path(path).exists());
    let redis = match socket {
        Some(path) => RedisAddress::Unix(PathBuf::from(path)),
        None => RedisAddress::Tcp { host: "127.0.0.1".to_owned(), port: 6379, tls: false },
    };
    let paths = PATHS.iter().filter(|path| host.path(path).exists()).map(PathBuf::from).collect();
    Defaults { name: "source", writers, redis: Some(redis), paths }
}
