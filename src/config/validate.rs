//! Raw → validated. Each section has its own file. A section reports what it refuses and continues,
//! so that one run shows every error.

mod files;
mod gitlab;
mod monitoring;
mod postgresql;
mod proxy;
mod redis;
mod repository;
mod retention;
mod rules;
mod schedule;
mod step;
mod verify;

use std::path::{Path, PathBuf};

use toml::Spanned;

use super::error::{Finding, position};
use super::found::Defaults;
use super::host::Host;
use super::raw::{self, Field, List, Raw};
use super::unit_files::Units;
use super::{Config, Repository};
use crate::values::SecretSource;
use rules::Refusal;
pub(super) use rules::path;

/// Validates `raw`, which was parsed from `text`. The returned configuration is only usable if there
/// are no findings: every refused value has a placeholder in it.
pub(super) fn config(raw: Raw, text: &str, source: &Path, host: &Host) -> (Config, Vec<Finding>) {
    let mut checker = Checker { text, findings: Vec::new() };
    let gitlab_section = Section::of("gitlab", raw.gitlab.as_ref());
    let files_section = Section::of("files", raw.files.as_ref());
    let location = Section::of("repository", raw.repository.as_ref())
        .field("location", raw.repository.as_ref().and_then(|raw| raw.get_ref().location.as_ref()));

    let units = list_units(&mut checker, &gitlab_section, host);
    let context = gitlab::Context { host, units: &units, redis_units: redis_units(&raw.redis) };
    let (gitlab, defaults, found) = checker.table("gitlab", raw.gitlab, |checker, section, raw| {
        gitlab::check(checker, section, raw, context)
    });
    let schedule = checker.table("schedule", raw.schedule, schedule::check);
    let postgresql = checker.table("postgresql", raw.postgresql, |checker, section, raw| {
        postgresql::check(checker, section, raw, &defaults)
    });
    let redis = redis::check(&mut checker, raw.redis, &defaults);
    let files = checker.table("files", raw.files, |checker, section, raw| {
        files::check(checker, section, raw, &gitlab.layout, &defaults)
    });
    let repository = checker.table("repository", raw.repository, repository::check);
    files::refuse_unsupported_method(&mut checker, &files_section, &files, repository.engine);
    let retention = checker.table("retention", raw.retention, retention::check);
    let verify = checker.table("verify", raw.verify, verify::check);
    let monitoring = checker.table("monitoring", raw.monitoring, monitoring::check);
    let steps = step::check(&mut checker, raw.step);
    refuse_overlap(&mut checker, &location, &repository, &files.paths);

    let config = Config {
        source: source.to_owned(),
        gitlab,
        schedule,
        postgresql,
        redis,
        files,
        repository,
        retention,
        verify,
        monitoring,
        steps,
        found,
    };
    (config, checker.findings)
}

/// Lists the unit files of the host.
fn list_units(checker: &mut Checker, section: &Section, host: &Host) -> Units {
    Units::of(host).unwrap_or_else(|error| {
        let message = format!("the unit files of this host cannot be listed: {error}");
        checker.refuse(&section.place("layout"), Refusal::new(message, "running as root"));
        Units::default()
    })
}

/// The units that `[[redis]]` names. They are no writers: only a restore restarts them.
fn redis_units(redis: &Field<Vec<Spanned<raw::Redis>>>) -> Vec<String> {
    let servers = redis.iter().flat_map(|list| list.get_ref());
    servers
        .filter_map(|redis| redis.get_ref().unit.as_ref())
        .map(|unit| unit.get_ref().clone())
        .collect()
}

/// Refuses a repository inside one of `paths` or around it.
fn refuse_overlap(
    checker: &mut Checker,
    location: &Place,
    repository: &Repository,
    paths: &[PathBuf],
) {
    let overlaps = |path: &&PathBuf| {
        repository.directory().is_some_and(|directory| rules::overlap(path, directory))
    };
    if let Some(path) = paths.iter().find(overlaps) {
        let message = format!(
            "'{}' and '{}' of files.paths lie one inside the other: the backup would include \
             itself",
            repository.location,
            path.display()
        );
        checker
            .refuse(location, Refusal::new(message, "a directory apart from all of files.paths"));
    }
}

/// The table's keys; empty for an absent table.
fn inner<T: Default>(table: Field<T>) -> T {
    table.map(Spanned::into_inner).unwrap_or_default()
}

/// A table of the file, present or absent.
struct Section {
    key: String,
    offset: Option<usize>,
}

impl Section {
    fn of<T>(key: impl Into<String>, table: Option<&Spanned<T>>) -> Self {
        Self { key: key.into(), offset: table.map(|table| table.span().start) }
    }

    /// The place of a missing key: that of the table, if there is one.
    fn place(&self, name: &str) -> Place {
        Place { key: format!("{}.{name}", self.key), offset: self.offset }
    }

    /// The place of a key's value, or that of the missing key.
    fn field<T>(&self, name: &str, field: Option<&Spanned<T>>) -> Place {
        Place { offset: field.map(|value| value.span().start).or(self.offset), ..self.place(name) }
    }
}

/// A key, and its offset in the file.
#[derive(Debug, Clone)]
struct Place {
    key: String,
    offset: Option<usize>,
}

/// Collects the findings.
struct Checker<'a> {
    text: &'a str,
    findings: Vec<Finding>,
}

impl Checker<'_> {
    /// Validates the table `key` with `check`; an absent table is empty.
    fn table<T: Default, U>(
        &mut self,
        key: &str,
        table: Field<T>,
        check: impl FnOnce(&mut Self, &Section, T) -> U,
    ) -> U {
        let section = Section::of(key, table.as_ref());
        check(self, &section, inner(table))
    }

    /// Records a finding.
    fn refuse(&mut self, place: &Place, refusal: Refusal) {
        let (line, column) = place.offset.map(|offset| position(self.text, offset)).unzip();
        self.findings.push(Finding {
            line,
            column,
            key: place.key.clone(),
            message: refusal.message,
            allowed: refusal.allowed,
        });
    }

    /// Validates the value of an optional key. Returns `None` if it is absent or refused.
    fn value<T, U>(
        &mut self,
        section: &Section,
        name: &str,
        field: Option<&Spanned<T>>,
        rule: impl FnOnce(&T) -> Result<U, Refusal>,
    ) -> Option<U> {
        let field = field?;
        match rule(field.get_ref()) {
            Ok(value) => Some(value),
            Err(refusal) => {
                self.refuse(&section.field(name, Some(field)), refusal);
                None
            }
        }
    }

    /// Validates each element of a list. Refuses duplicates; leaves out what is refused.
    fn list<U: PartialEq>(
        &mut self,
        section: &Section,
        name: &str,
        list: &List,
        rule: impl Fn(&String) -> Result<U, Refusal>,
    ) -> Option<Vec<(Place, U)>> {
        let mut accepted: Vec<(Place, U)> = Vec::new();
        for (index, element) in list.as_ref()?.get_ref().iter().enumerate() {
            let place = section.field(&format!("{name}[{index}]"), Some(element));
            match rule(element.get_ref()) {
                Ok(value) => match accepted.iter().find(|(_, other)| *other == value) {
                    Some((first, _)) => {
                        let refusal = Refusal::new(
                            format!(
                                "'{}' is listed twice, first as {}",
                                element.get_ref(),
                                first.key
                            ),
                            "each value once",
                        );
                        self.refuse(&place, refusal);
                    }
                    None => accepted.push((place, value)),
                },
                Err(refusal) => self.refuse(&place, refusal),
            }
        }
        Some(accepted)
    }

    /// Validates the key `command`: argv with an absolute program.
    fn command(&mut self, section: &Section, list: &List) -> Option<Vec<String>> {
        self.named_command(section, "command", list)
    }

    /// Validates the key `name`: argv with an absolute program.
    fn named_command(&mut self, section: &Section, name: &str, list: &List) -> Option<Vec<String>> {
        let list = list.as_ref()?;
        let strings: Vec<_> =
            list.get_ref().iter().map(|argument| argument.get_ref().clone()).collect();
        match rules::command(&strings) {
            Ok(()) => Some(strings),
            Err((index, refusal)) => {
                let element = index
                    .and_then(|index| list.get_ref().get(index).map(|element| (index, element)));
                let place = match element {
                    Some((index, element)) => {
                        section.field(&format!("{name}[{index}]"), Some(element))
                    }
                    None => section.field(name, Some(list)),
                };
                self.refuse(&place, refusal);
                Some(strings)
            }
        }
    }

    /// Validates `password-file` and `password-credential`, of which at most one may be set.
    fn secret(
        &mut self,
        section: &Section,
        file: &Field<String>,
        credential: &Field<String>,
    ) -> Option<SecretSource> {
        self.named_secret(section, "password", file, credential)
    }

    /// Validates `NAME-file` and `NAME-credential`, of which at most one may be set.
    fn named_secret(
        &mut self,
        section: &Section,
        name: &str,
        file: &Field<String>,
        credential: &Field<String>,
    ) -> Option<SecretSource> {
        let (file_key, credential_key) = (format!("{name}-file"), format!("{name}-credential"));
        if file.is_some() && credential.is_some() {
            let message = format!("contradicts {file_key}: a {name} is in one place");
            self.refuse(
                &section.field(&credential_key, credential.as_ref()),
                Refusal::new(message, "one of the two"),
            );
        }
        let path = self
            .value(section, &file_key, file.as_ref(), |path| rules::path(path))
            .map(SecretSource::File);
        let id =
            self.value(section, &credential_key, credential.as_ref(), |id| rules::credential(id));
        path.or(id)
    }
}
