//! GitLab's Omnibus package: one systemd unit, and runit below it with GitLab's services,
//! PostgreSQL and Redis.
//!
//! Each service that can write gets a proxy. The databases stay up: they are dumped, not copied.

use std::path::PathBuf;

use super::{Layout, outermost};
use crate::config::Proxy;
use crate::config::declared::{self, Gitaly};
use crate::config::found::{Defaults, Server};
use crate::config::host::Host;
use crate::config::unit_files::Units;
use crate::host::own;

pub(super) struct Omnibus;

/// What this layout is called.
pub const OMNIBUS: &str = "omnibus";
/// runit's supervisor, and so the package's one unit: everything runs below it, GitLab, its
/// databases and its front.
pub const SUPERVISOR: &str = "gitlab-runsvdir.service";
/// A link in it for each service that is enabled.
const SERVICES: &str = "/opt/gitlab/service";
const CTL: &str = "/opt/gitlab/bin/gitlab-ctl";
const SV: &str = "/opt/gitlab/embedded/bin/sv";

/// What keeps the databases: 'gitlab-ctl upgrade' leaves it running too.
const DATABASES: [&str; 8] = [
    "postgresql",
    "patroni",
    "consul",
    "redis",
    "sentinel",
    "geo-postgresql",
    "pgbouncer",
    "pgbouncer-exporter",
];
/// What writes nothing that is backed up. nginx goes on to tell those who come that GitLab is away.
const HARMLESS: [&str; 8] = [
    "nginx",
    "logrotate",
    "prometheus",
    "alertmanager",
    "node-exporter",
    "grafana",
    "storage-check",
    "remote-syslog",
];
/// Its Redis is stopped and started by a restore.
const REDIS: &str = "redis";
const GITALY: &str = "gitaly";

const PSQL_SETTINGS: &str = "/opt/gitlab/etc/gitlab-psql-rc";
const REPOSITORIES: &str = "/var/opt/gitlab/git-data/repositories";
const DATA: [&str; 3] = [
    "/var/opt/gitlab/gitlab-rails/uploads",
    "/var/opt/gitlab/gitlab-rails/shared",
    "/var/opt/gitlab/gitlab-ci/builds",
];
/// What GitLab's own backup leaves out: without the secrets the database cannot be decrypted.
const CONFIGURATION: [&str; 4] = [
    "/etc/gitlab",
    "/var/opt/gitlab/.ssh",
    "/var/opt/gitlab/gitlab-sshd",
    "/opt/gitlab/embedded/service/gitlab-rails/file_hooks",
];
const SSH: &str = "/etc/ssh";

impl Layout for Omnibus {
    fn name(&self) -> &'static str {
        OMNIBUS
    }

    fn recognises(&self, units: &Units) -> bool {
        units.find(SUPERVISOR).is_some()
    }

    fn defaults(&self, host: &Host, units: &Units) -> Defaults {
        let services = names(host, SERVICES);
        let has = |name: &str| services.iter().any(|service| service == name);
        let ticks = |name: &str| name.ends_with("-exporter") || name.ends_with("_exporter");
        let writes = |name: &&String| {
            !DATABASES.contains(&name.as_str())
                && !HARMLESS.contains(&name.as_str())
                && !ticks(name)
        };
        let mut proxies: Vec<Proxy> =
            services.iter().filter(writes).map(|name| proxy(host, name)).collect();
        // Those who are at something need it to come to an end.
        if has(GITALY) {
            proxies
                .iter_mut()
                .filter(|proxy| proxy.name != GITALY)
                .for_each(|proxy| proxy.after = vec![GITALY.to_owned()]);
        }
        let redis = has(REDIS).then(|| proxy(host, REDIS));
        let redis_unit = redis.as_ref().map(Proxy::unit);
        proxies.extend(redis);

        // Only root and Gitaly can read it.
        let gitaly: Vec<Gitaly> = declared::gitaly_of(host, units).into_iter().flatten().collect();
        let exists = |path: &PathBuf| host.path(path).exists();
        let mut configuration: Vec<PathBuf> = CONFIGURATION.map(PathBuf::from).into();
        configuration.extend(
            names(host, SSH)
                .iter()
                .filter(|name| name.starts_with("ssh_host_"))
                .map(|name| PathBuf::from(SSH).join(name)),
        );
        configuration.extend(gitaly.iter().filter_map(|gitaly| gitaly.hooks.clone()));
        configuration.retain(exists);
        let mut data: Vec<PathBuf> = gitaly
            .into_iter()
            .flat_map(|gitaly| gitaly.storages)
            .map(|storage| storage.path)
            .collect();
        if data.is_empty() {
            data.push(REPOSITORIES.into());
        }
        data.extend(DATA.map(PathBuf::from));
        data.retain(exists);
        let paths = outermost(data.iter().chain(&configuration));
        Defaults {
            writers: Vec::new(),
            proxies,
            server: (has("postgresql") || has("patroni")).then(|| server(host)),
            redis: redis_unit.is_some().then(|| "unix:///var/opt/gitlab/redis/redis.socket".to_owned()),
            redis_unit,
            configuration,
            paths,
            refusal: has("praefect").then(|| {
                "Praefect runs here: what its database says of the repositories and what each node has on disk cannot be captured together, \
                 and copies of the nodes' files would not fit it. GitLab's own gitaly-backup is made for that"
                    .to_owned()
            }),
            ..Defaults::default()
        }
    }
}

/// What is in `directory`, sorted; nothing if it is not there.
fn names(host: &Host, directory: &str) -> Vec<String> {
    let entries = own::entries(host.path(directory)).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !name.starts_with('.'))
        .collect();
    names.sort();
    names
}

/// By runit itself: the package's own tool calls it, too, after a second in which it loads its
/// commands. `up` and `down` wait for nothing, as the status is asked anyway.
fn proxy(host: &Host, name: &str) -> Proxy {
    let tool = |ctl: &str, sv: &str| match host.path(SV).exists() {
        true => vec![SV.to_owned(), sv.to_owned(), format!("{SERVICES}/{name}")],
        false => vec![CTL.to_owned(), ctl.to_owned(), name.to_owned()],
    };
    let timeout = Proxy::TIMEOUT;
    let (start, stop, status) =
        (tool("start", "up"), tool("stop", "down"), tool("status", "status"));
    Proxy { name: name.to_owned(), start, stop, status, timeout, after: Vec::new() }
}

/// The bundled server, as 'gitlab-psql' reaches it: never through PgBouncer.
fn server(host: &Host) -> Server {
    let text = own::read_text(host.path(PSQL_SETTINGS)).unwrap_or_default();
    let setting = |name: &str| {
        let value =
            text.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix('='))?;
        let value = value.trim_matches(['\'', '"', ' ']);
        (!value.is_empty()).then(|| value.to_owned())
    };
    Server {
        host: setting("psql_host")
            .filter(|host| host.starts_with('/'))
            .unwrap_or_else(|| "/var/opt/gitlab/postgresql".to_owned()),
        port: setting("psql_port").and_then(|port| port.parse().ok()).unwrap_or(5432),
        user: setting("psql_user").unwrap_or_else(|| "gitlab-psql".to_owned()),
        bin_dir: "/opt/gitlab/embedded/bin".into(),
    }
}
