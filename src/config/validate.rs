//! Raw → validated: every value checked, every default filled in, every finding kept.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use toml::Spanned;

use crate::values::{SecretSource, Timespan, UnitName};

use super::error::{ConfigError, Finding, place};
use super::host::Host;
use super::layout::{self, Defaults};
use super::raw::{self, Field, Raw};
use super::{
    Config, EngineName, Files, Gitlab, Postgresql, ReadinessUrl, Redis, RedisAddress, Repository, Retention, Schedule, Stage, Step,
};

/// execve(2): MAX_ARG_STRLEN.
const ARGUMENT_MOST: usize = 128 * 1024 - 1;

/// Collects findings while values are taken.
struct Check<'a> {
    text: &'a str,
    findings: Vec<Finding>,
}

impl Check<'_> {
    fn fail(&mut self, key: &str, span: Option<std::ops::Range<usize>>, message: impl Into<String>) {
        let place = span.map(|span| place(self.text, &span));
        self.findings.push(Finding { place, key: key.to_owned(), message: message.into() });
    }

    /// The value through `parse`, or `default` where there is none or it is wrong.
    fn take<T, U>(&mut self, key: &str, field: Field<T>, default: U, parse: impl FnOnce(&T) -> Result<U, String>) -> U {
        let Some(field) = field else { return default };
        match parse(field.get_ref()) {
            Ok(value) => value,
            Err(message) => {
                self.fail(key, Some(field.span()), message);
                default
            }
        }
    }

    fn list<U>(&mut self, key: &str, items: &[Spanned<String>], parse: impl Fn(&str) -> Result<U, String>) -> Vec<U> {
        let mut values = Vec::new();
        for (index, item) in items.iter().enumerate() {
            match parse(item.get_ref()) {
                Ok(value) => values.push(value),
                Err(message) => self.fail(&format!("{key}[{index}]"), Some(item.span()), message),
            }
        }
        values
    }

    fn secret(&mut self, section: &str, file: Field<String>, credential: Field<String>) -> Option<SecretSource> {
        if let (Some(_), Some(credential)) = (&file, &credential) {
            self.fail(&format!("{section}.password-credential"), Some(credential.span()), "contradicts password-file: give one of the two");
        }
        let file = self.take(&format!("{section}.password-file"), file, None, |text| path(text).map(|path| Some(SecretSource::File(path))));
        let credential = self.take(&format!("{section}.password-credential"), credential, None, |text| {
            let fine = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
            if fine { Ok(Some(SecretSource::Credential(text.clone()))) } else { Err("letters, digits and -_. are allowed".to_owned()) }
        });
        file.or(credential)
    }

    fn command(&mut self, key: &str, words: &[Spanned<String>], span: std::ops::Range<usize>) -> Vec<String> {
        let command = self.list(key, words, |word| match word {
            word if word.contains('\0') => Err("holds a NUL byte, which no argument can hold".to_owned()),
            word if word.len() > ARGUMENT_MOST => Err("is longer than an argument may be (128 KiB)".to_owned()),
            word => Ok(word.to_owned()),
        });
        match words.first() {
            None => self.fail(key, Some(span), "is empty: name a program by its absolute path"),
            Some(program) => {
                if let Err(message) = path(program.get_ref()) {
                    self.fail(&format!("{key}[0]"), Some(program.span()), message);
                }
            }
        }
        command
    }
}

/// Checks everything.
pub(super) fn validate(raw: Raw, text: &str, source: &Path, host: &Host) -> Result<Config, ConfigError> {
    let mut check = Check { text, findings: Vec::new() };
    let defaults = defaults(&mut check, &raw.gitlab, host);
    let config = Config {
        source: std::path::absolute(source).unwrap_or_else(|_| source.to_owned()),
        gitlab: gitlab(&mut check, raw.gitlab, &defaults),
        schedule: Schedule {
            calendar: check.take("schedule.calendar", raw.schedule.calendar, "*-*-* 02:30:00".to_owned(), calendar),
            randomized_delay: check
                .take("schedule.randomized-delay", raw.schedule.randomized_delay, Timespan::from_secs(600), |text| text.parse()),
        },
        postgresql: postgresql(&mut check, raw.postgresql),
        redis: redis(&mut check, raw.redis, &defaults),
        files: files(&mut check, raw.files, &defaults),
        repository: repository(&mut check, raw.repository),
        retention: Retention {
            keep_daily: raw.retention.keep_daily.map(Spanned::into_inner),
            keep_weekly: raw.retention.keep_weekly.map(Spanned::into_inner),
            keep_monthly: raw.retention.keep_monthly.map(Spanned::into_inner),
        },
        steps: steps(&mut check, raw.step),
    };
    for path in &config.files.paths {
        let location = Path::new(&config.repository.location);
        if location.is_absolute() && (location.starts_with(path) || path.starts_with(location)) {
            check.fail("repository.location", None, format!("{} and [files] paths {} overlap", location.display(), path.display()));
        }
    }
    if check.findings.is_empty() { Ok(config) } else { Err(ConfigError::new(source, check.findings)) }
}

fn defaults(check: &mut Check<'_>, gitlab: &raw::Gitlab, host: &Host) -> Defaults {
    match gitlab.layout.as_ref().map_or(raw::Layout::Auto, |layout| *layout.get_ref()) {
        raw::Layout::Source => layout::source(host),
        raw::Layout::Custom => layout::custom(),
        raw::Layout::Auto => layout::detect(host).unwrap_or_else(|| {
            if gitlab.writers.is_none() {
                let message = "no layout that is known was found on this host: set layout = \"custom\" and name the writers";
                check.fail("gitlab.layout", gitlab.layout.as_ref().map(Spanned::span), message);
            }
            layout::custom()
        }),
    }
}

fn gitlab(check: &mut Check<'_>, raw: raw::Gitlab, defaults: &Defaults) -> Gitlab {
    let unit = |name: &str| UnitName::new(name).map_err(|error| error.to_string());
    let mut seen = BTreeSet::new();
    let given = raw.writers.is_some();
    let mut writers = match &raw.writers {
        Some(names) => check.list("gitlab.writers", names.get_ref(), unit),
        None => defaults.writers.iter().filter_map(|name| UnitName::new(name).ok()).collect(),
    };
    writers.retain(|writer| seen.insert(writer.clone()));
    if writers.is_empty() && check.findings.is_empty() {
        let span = raw.writers.as_ref().map(Spanned::span);
        let what = if given { "is empty" } else { "is missing" };
        check.fail("gitlab.writers", span, format!("{what}: name the units that write, such as \"gitlab-puma.service\""));
    }
    if let Some(own) = writers.iter().find(|writer| writer.as_str().starts_with("gitlab-backup")) {
        check.fail("gitlab.writers", raw.writers.as_ref().map(Spanned::span), format!("{own} is a unit of this program"));
    }
    Gitlab {
        layout: defaults.name.to_owned(),
        writers,
        readiness: check.take("gitlab.readiness-url", raw.readiness_url, None, |text| readiness(text).map(Some)),
        max_downtime: check.take("gitlab.max-downtime", raw.max_downtime, Timespan::from_secs(1800), |text| positive(text)),
        stop_grace: check.take("gitlab.stop-grace", raw.stop_grace, Timespan::from_secs(10), |text| text.parse()),
    }
}

fn postgresql(check: &mut Check<'_>, raw: raw::Postgresql) -> Option<Postgresql> {
    let host = check.take("postgresql.host", raw.host, "/var/run/postgresql".to_owned(), |text| plain(text));
    let role = check.take("postgresql.user", raw.user, "postgres".to_owned(), |text| plain(text));
    let socket = host.starts_with('/');
    let os_user = if socket { role.clone() } else { "gitlab-backup".to_owned() };
    let postgresql = Postgresql {
        port: raw.port.map_or(5432, Spanned::into_inner),
        os_user: check.take("postgresql.os-user", raw.os_user, os_user, |text| user(text)),
        databases: raw.databases.map(|names| check.list("postgresql.databases", names.get_ref(), plain)),
        jobs: check.take("postgresql.jobs", raw.jobs, 2, |jobs| if *jobs > 0 { Ok(*jobs) } else { Err("1 or more is needed".to_owned()) }),
        password: check.secret("postgresql", raw.password_file, raw.password_credential),
        bin_dir: check.take("postgresql.bin-dir", raw.bin_dir, None, |text| path(text).map(Some)),
        host,
        user: role,
    };
    raw.enable.is_none_or(Spanned::into_inner).then_some(postgresql)
}

fn redis(check: &mut Check<'_>, raw: Option<Vec<raw::Redis>>, defaults: &Defaults) -> Vec<Redis> {
    let timeout = Timespan::from_secs(600);
    let Some(instances) = raw else {
        let default =
            |address: &RedisAddress| Redis { name: "main".into(), address: address.clone(), username: None, password: None, timeout };
        return defaults.redis.iter().map(default).collect();
    };
    let mut seen = BTreeSet::new();
    let mut all = Vec::new();
    for (index, raw) in instances.into_iter().enumerate() {
        let key = |name: &str| format!("redis[{index}].{name}");
        let span = raw.name.as_ref().map(Spanned::span);
        let name = check.take(&key("name"), raw.name, "main".to_owned(), |text| word(text));
        if !seen.insert(name.clone()) {
            check.fail(&key("name"), span, format!("'{name}' is there twice: each instance needs a name of its own"));
        }
        if raw.url.is_none() {
            check.fail(&key("url"), None, "is missing: unix:///path, redis://host:port or rediss://host:port");
        }
        let fallback = (RedisAddress::Unix(PathBuf::new()), None);
        let (address, username) = check.take(&key("url"), raw.url, fallback, |text| redis_url(text));
        all.push(Redis {
            name,
            address,
            username,
            password: check.secret(&format!("redis[{index}]"), raw.password_file, raw.password_credential),
            timeout: check.take(&key("timeout"), raw.timeout, timeout, |text| positive(text)),
        });
    }
    all
}

fn files(check: &mut Check<'_>, raw: raw::Files, defaults: &Defaults) -> Files {
    let command = raw.command.as_ref().map(|command| check.command("files.command", command.get_ref(), command.span()));
    if let (Some(_), Some(paths)) = (&command, &raw.paths) {
        check.fail("files.paths", Some(paths.span()), "contradicts files.command: the command is the file backup instead");
    }
    let paths = match (&raw.paths, &command) {
        (_, Some(_)) => Vec::new(),
        (Some(paths), None) => check.list("files.paths", paths.get_ref(), path),
        (None, None) => defaults.paths.clone(),
    };
    if paths.is_empty() && command.is_none() && check.findings.is_empty() {
        check.fail("files.paths", raw.paths.as_ref().map(Spanned::span), "nothing to back up: name the directories of GitLab's data");
    }
    for (index, path) in paths.iter().enumerate() {
        if let Some(outer) = paths.iter().enumerate().find(|(other, outer)| *other != index && path.starts_with(outer)) {
            let span = raw.paths.as_ref().map(Spanned::span);
            check.fail("files.paths", span, format!("{} is inside {}: name the outer one", path.display(), outer.1.display()));
        }
    }
    let exclude = raw.exclude.map(Spanned::into_inner).unwrap_or_default();
    let exclude = check.list("files.exclude", &exclude, |glob| {
        let text = plain(glob)?;
        globset::Glob::new(&text).map(|_| text).map_err(|error| error.to_string())
    });
    Files { paths, exclude, command, presync: raw.presync.is_none_or(Spanned::into_inner) }
}

fn repository(check: &mut Check<'_>, raw: raw::Repository) -> Repository {
    let engine = match raw.engine.map_or(raw::Engine::Builtin, Spanned::into_inner) {
        raw::Engine::Builtin => EngineName::Builtin,
        raw::Engine::Restic => EngineName::Restic,
    };
    let location = check.take("repository.location", raw.location, "/var/backups/gitlab".to_owned(), |text| match engine {
        EngineName::Restic => plain(text),
        EngineName::Builtin => path(text).map(|_| text.clone()).map_err(|error| format!("{error}; other places need engine = \"restic\"")),
    });
    let default = SecretSource::File(PathBuf::from("/etc/gitlab-backup/repository.password"));
    Repository {
        engine,
        location,
        password: check.secret("repository", raw.password_file, raw.password_credential).unwrap_or(default),
        environment_file: check.take("repository.environment-file", raw.environment_file, None, |text| path(text).map(Some)),
    }
}

fn steps(check: &mut Check<'_>, raw: Vec<raw::Step>) -> Vec<Step> {
    let mut seen = BTreeSet::new();
    let mut steps = Vec::new();
    for (index, raw) in raw.into_iter().enumerate() {
        let key = |name: &str| format!("step[{index}].{name}");
        let span = raw.name.as_ref().map(Spanned::span);
        for (name, missing) in [("name", raw.name.is_none()), ("stage", raw.stage.is_none()), ("command", raw.command.is_none())] {
            if missing {
                check.fail(&key(name), span.clone(), "is missing");
            }
        }
        let name = check.take(&key("name"), raw.name, String::new(), |text| word(text));
        if !seen.insert(name.clone()) {
            check.fail(&key("name"), span, format!("'{name}' is there twice: each step needs a name of its own"));
        }
        let stage = match raw.stage.map_or(raw::Stage::Finish, Spanned::into_inner) {
            raw::Stage::Prepare => Stage::Prepare,
            raw::Stage::Window => Stage::Window,
            raw::Stage::Store => Stage::Store,
            raw::Stage::Finish => Stage::Finish,
        };
        let step = Step {
            name,
            description: check.take(&key("description"), raw.description, None, |text| plain(text).map(Some)),
            stage,
            command: raw.command.map(|words| check.command(&key("command"), words.get_ref(), words.span())).unwrap_or_default(),
            user: check.take(&key("user"), raw.user, None, |text| user(text).map(Some)),
            timeout: check.take(&key("timeout"), raw.timeout, Timespan::from_secs(3600), |text| positive(text)),
        };
        if raw.enable.is_none_or(Spanned::into_inner) {
            steps.push(step);
        }
    }
    steps
}

/// One line without control characters, not empty.
fn plain(text: &str) -> Result<String, String> {
    match text {
        "" => Err("is empty".to_owned()),
        text if text.chars().any(char::is_control) => Err("holds a control character".to_owned()),
        text => Ok(text.to_owned()),
    }
}

fn calendar(text: &String) -> Result<String, String> {
    let line = plain(text)?;
    if line.contains('%') || !line.is_ascii() {
        return Err("is not a calendar event: see systemd.time(7) and 'systemd-analyze calendar'".to_owned());
    }
    Ok(line)
}

/// Letters, digits, `-` and `_`: part of a file's or unit's name.
fn word(text: &str) -> Result<String, String> {
    let fine =
        !text.is_empty() && text.len() <= 100 && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c));
    if fine { Ok(text.to_owned()) } else { Err(format!("'{text}': lower case letters, digits, - and _ are allowed")) }
}

/// A user's name, systemd.exec(5) and useradd(8).
fn user(text: &str) -> Result<String, String> {
    let fine = text.len() <= 31
        && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if fine { Ok(text.to_owned()) } else { Err(format!("'{text}' is not a user name")) }
}

fn positive(text: &str) -> Result<Timespan, String> {
    let span: Timespan = text.parse()?;
    if span > Timespan::from_secs(0) { Ok(span) } else { Err("must be longer than nothing".to_owned()) }
}

/// Absolute, without `..`, as systemd takes it.
fn path(text: &str) -> Result<PathBuf, String> {
    let line = plain(text)?;
    let path = Path::new(&line);
    if !path.is_absolute() || path.components().any(|part| part == Component::ParentDir) {
        return Err(format!("'{text}' is not an absolute path without '..'"));
    }
    Ok(path.components().collect())
}

fn readiness(text: &str) -> Result<ReadinessUrl, String> {
    if let Some(rest) = text.strip_prefix("unix:") {
        let (socket, path_) = rest.split_once(':').unwrap_or((rest, "/-/readiness"));
        return Ok(ReadinessUrl::Unix { socket: path(socket)?, path: path_.to_owned() });
    }
    match reqwest::Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(ReadinessUrl::Http(text.to_owned())),
        _ => Err(format!("'{text}': http://…, https://… or unix:/path/to/socket are allowed")),
    }
}

fn redis_url(text: &str) -> Result<(RedisAddress, Option<String>), String> {
    let allowed = "unix:///path, redis://[user@]host[:port] or rediss://… are allowed";
    let url = reqwest::Url::parse(text).map_err(|error| format!("{error}: {allowed}"))?;
    if url.password().is_some() {
        return Err("holds a password: put it into a file and name that as password-file".to_owned());
    }
    let username = Some(url.username().to_owned()).filter(|name| !name.is_empty());
    let address = match (url.scheme(), url.host_str()) {
        ("unix", None | Some("")) => RedisAddress::Unix(path(url.path())?),
        ("redis", Some(host)) => RedisAddress::Tcp { host: host.to_owned(), port: url.port().unwrap_or(6379), tls: false },
        ("rediss", Some(host)) => RedisAddress::Tcp { host: host.to_owned(), port: url.port().unwrap_or(6379), tls: true },
        _ => return Err(allowed.to_owned()),
    };
    Ok((address, username))
}
