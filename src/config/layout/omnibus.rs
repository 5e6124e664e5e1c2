//! GitLab's Omnibus package: a single systemd unit runs runit, which runs GitLab's services,
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
use crate::values::UnitName;

pub(super) struct Omnibus;

/// The layout's name.
pub const OMNIBUS: &str = "omnibus";
/// The unit of runit's supervisor, the only one of the package. All services run below it: GitLab,
/// the databases and nginx.
pub const SUPERVISOR: &str = "gitlab-runsvdir.service";
/// The directory with a link for each enabled service.
const SERVICES: &str = "/opt/gitlab/service";
const CTL: &str = "/opt/gitlab/bin/gitlab-ctl";
const SV: &str = "/opt/gitlab/embedded/bin/sv";

/// The services that run the databases. 'gitlab-ctl upgrade' does not stop them either.
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
/// Services that write no data that is backed up. nginx keeps serving the page that says that
/// GitLab is down.
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
/// Its proxy is for a restore only, which restarts Redis.
const REDIS: &str = "redis";

const PSQL_SETTINGS: &str = "/opt/gitlab/etc/gitlab-psql-rc";
const REPOSITORIES: &str = "/var/opt/gitlab/git-data/repositories";
const DATA: [&str; 3] = [
    "/var/opt/gitlab/gitlab-rails/uploads",
    "/var/opt/gitlab/gitlab-rails/shared",
    "/var/opt/gitlab/gitlab-ci/builds",
];
/// Configuration and secrets, which GitLab's own backup leaves out. The secrets decrypt values of
/// the database.
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
        let mut proxies = writing_proxies(host, &services);
        let redis = has(REDIS).then(|| proxy(host, REDIS));
        let redis_unit: Option<UnitName> = redis.as_ref().map(Proxy::unit);
        proxies.extend(redis);

        // Only root and Gitaly can read these files.
        let gitaly: Vec<Gitaly> =
            declared::gitaly_by_units(host, units).into_iter().flatten().collect();
        let configuration = configuration(host, &gitaly);
        let data = data(host, gitaly);
        Defaults {
            writers: Vec::new(),
            proxies,
            server: (has("postgresql") || has("patroni")).then(|| server(host)),
            redis: redis_unit
                .is_some()
                .then(|| "unix:///var/opt/gitlab/redis/redis.socket".to_owned()),
            redis_unit,
            paths: outermost(data.iter().chain(&configuration)),
            configuration,
            refusal: has("praefect").then(|| {
                "Praefect runs here: its database and the repositories of its nodes cannot be \
                 captured at the same moment, and restored copies would not match the database. \
                 Use GitLab's gitaly-backup instead"
                    .to_owned()
            }),
            ..Defaults::default()
        }
    }
}

/// The proxies of those `services` that can write.
fn writing_proxies(host: &Host, services: &[String]) -> Vec<Proxy> {
    let is_exporter = |name: &str| name.ends_with("-exporter") || name.ends_with("_exporter");
    let writes = |name: &&String| {
        !DATABASES.contains(&name.as_str())
            && !HARMLESS.contains(&name.as_str())
            && !is_exporter(name)
    };
    services.iter().filter(writes).map(|name| proxy(host, name)).collect()
}

/// The existing configuration and secrets, with the host's SSH keys and Gitaly's hooks.
fn configuration(host: &Host, gitaly: &[Gitaly]) -> Vec<PathBuf> {
    let ssh_keys = names(host, SSH)
        .into_iter()
        .filter(|name| name.starts_with("ssh_host_"))
        .map(|name| PathBuf::from(SSH).join(name));
    let hooks = gitaly.iter().filter_map(|gitaly| gitaly.hooks.clone());
    let all = CONFIGURATION.map(PathBuf::from).into_iter().chain(ssh_keys).chain(hooks);
    all.filter(|path| host.path(path).exists()).collect()
}

/// The existing directories of data: Gitaly's storages, and what Rails keeps outside of them.
fn data(host: &Host, gitaly: Vec<Gitaly>) -> Vec<PathBuf> {
    let storages = gitaly.into_iter().flat_map(|gitaly| gitaly.storages);
    let mut data: Vec<PathBuf> = storages.map(|storage| storage.path).collect();
    if data.is_empty() {
        data.push(REPOSITORIES.into());
    }
    data.extend(DATA.map(PathBuf::from));
    data.retain(|path| host.path(path).exists());
    data
}

/// The names of the entries of `directory`, sorted and without hidden ones; empty if it does not
/// exist.
fn names(host: &Host, directory: &str) -> Vec<String> {
    let entries = own::entries(host.path(directory)).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !name.starts_with('.'))
        .collect();
    names.sort();
    names
}

/// The proxy of the service `name`. It calls runit's `sv` directly, because `gitlab-ctl` needs a
/// second to load before it calls `sv`. `up` and `down` do not wait: the status command is polled
/// anyway.
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

/// The bundled PostgreSQL server, with the settings of 'gitlab-psql': never through PgBouncer.
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
