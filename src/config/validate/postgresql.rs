//! `[postgresql]`

use super::rules::{self, Refusal};
use super::{Checker, Defaults, Section};
use crate::accounts;
use crate::config::Postgresql;
use crate::config::raw::{self, Field};
use crate::values::Timespan;

pub(super) fn check(
    checker: &mut Checker,
    section: &Section,
    raw: raw::Postgresql,
    defaults: &Defaults,
) -> Option<Postgresql> {
    // The layout's defaults describe its own server, not one on a configured host.
    let server = defaults.server.as_ref().filter(|_| raw.host.is_none());
    let host = checker.value(section, "host", raw.host.as_ref(), |text| host(text));
    let host = host
        .or_else(|| server.map(|server| server.host.clone()))
        .unwrap_or_else(|| "/var/run/postgresql".to_owned());
    let user =
        checker.value(section, "user", raw.user.as_ref(), |name| rules::postgresql_name(name));
    let user = user
        .or_else(|| server.map(|server| server.user.clone()))
        .unwrap_or_else(|| "postgres".to_owned());
    let by_socket = host.starts_with('/');
    let os_user = match by_socket || raw.os_user.is_some() {
        true => os_user_of(checker, section, ("os-user", &raw.os_user), &user),
        // Connections to a host use a password, so the OS user does not matter.
        false => Some(accounts::SERVICE.to_owned()),
    };
    let restore_user = restore_user(checker, section, &raw, by_socket);
    let restore_os_user = match &restore_user {
        None if raw.restore_os_user.is_none() => os_user.clone(),
        role => os_user_of(
            checker,
            section,
            ("restore-os-user", &raw.restore_os_user),
            role.as_deref().unwrap_or_default(),
        ),
    };
    let databases = databases(checker, section, &raw);
    let postgresql = Postgresql {
        port: checker
            .value(section, "port", raw.port.as_ref(), |port| rules::number(*port, 1, u16::MAX))
            .unwrap_or(server.map_or(5432, |server| server.port)),
        restore_user: restore_user.unwrap_or_else(|| user.clone()),
        restore_os_user: restore_os_user.unwrap_or_default(),
        os_user: os_user.unwrap_or_default(),
        databases,
        jobs: checker
            .value(section, "jobs", raw.jobs.as_ref(), |jobs| rules::number(*jobs, 1, 256))
            .unwrap_or(2),
        ddl_wait: checker
            .value(section, "ddl-wait", raw.ddl_wait.as_ref(), |text| rules::timespan(text))
            .unwrap_or(Timespan::from_secs(30)),
        password: checker.secret(section, &raw.password_file, &raw.password_credential),
        bin_dir: checker
            .value(section, "bin-dir", raw.bin_dir.as_ref(), |path| rules::path(path))
            .or_else(|| server.map(|server| server.bin_dir.clone())),
        host,
        user,
    };
    raw.enable.is_none_or(|enable| enable.into_inner()).then_some(postgresql)
}

/// `restore-user`, which only works with a socket: there the OS user proves the role.
fn restore_user(
    checker: &mut Checker,
    section: &Section,
    raw: &raw::Postgresql,
    by_socket: bool,
) -> Option<String> {
    checker.value(section, "restore-user", raw.restore_user.as_ref(), |name| match by_socket {
        true => rules::postgresql_name(name),
        false => Err(Refusal::new(
            "needs a socket",
            "leave it out where host is a host: there, one role and its password do everything",
        )),
    })
}

/// The names of the databases; `None` for all of them.
fn databases(
    checker: &mut Checker,
    section: &Section,
    raw: &raw::Postgresql,
) -> Option<Vec<String>> {
    let databases =
        checker.list(section, "databases", &raw.databases, |name| rules::postgresql_name(name));
    if let Some(list) = raw.databases.as_ref().filter(|list| list.get_ref().is_empty()) {
        let refusal = Refusal::new(
            "is empty",
            "names of databases; leave it out for all of them, or set enable = false for none",
        );
        checker.refuse(&section.field("databases", Some(list)), refusal);
    }
    databases.map(|list| list.into_iter().map(|(_, name)| name).collect())
}

/// The OS user that `key` names; by default the one with the role's name, which peer authentication
/// on a socket expects.
fn os_user_of(
    checker: &mut Checker,
    section: &Section,
    (key, field): (&str, &Field<String>),
    role: &str,
) -> Option<String> {
    if field.is_some() {
        return checker.value(section, key, field.as_ref(), |name| rules::os_user(name));
    }
    rules::os_user(role)
        .map_err(|_| {
            let message = format!(
                "is missing: the role '{role}' is not the name of an OS user that could connect \
                 to a socket"
            );
            let refusal = Refusal::new(message, "the OS user to connect as");
            checker.refuse(&section.place(key), refusal);
        })
        .ok()
}

/// A socket's directory, or a single host. Refuses libpq's lists of hosts: the backup must know
/// which server it dumps.
fn host(text: &str) -> Result<String, Refusal> {
    if text.starts_with('/') {
        return Ok(rules::path(text)?.to_string_lossy().into_owned());
    }
    if !text.is_empty()
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-._:%".contains(c))
        && !text.starts_with('-')
    {
        return Ok(text.to_owned());
    }
    Err(Refusal::new(
        format!("'{text}' is neither a directory nor a host"),
        "the absolute path of the socket's directory, or one host name or address",
    ))
}
