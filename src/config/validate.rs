//! Raw → validated: a file per section, each of which reports what it refuses and goes on, so that
//! one run shows everything.

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

use super::Config;
use super::error::{Finding, position};
use super::found::Defaults;
use super::host::Host;
use super::raw::{Field, List, Raw};
use super::unit_files::Units;
use crate::values::SecretSource;
use rules::Refusal;
pub(super) use rules::path;

/// Judges `raw`. What is refused stands in the findings and has a stand-in in the returned value,
/// which is only good without findings.
pub(super) fn config(raw: Raw, text: &str, source: &Path, host: &Host) -> (Config, Vec<Finding>) {
    let mut checker = Checker { text, findings: Vec::new() };
    let section = Section::of("gitlab", raw.gitlab.as_ref());
    let units = Units::of(host).unwrap_or_else(|error| {
        checker.refuse(
            &section.place("layout"),
            Refusal::new(
                format!("the unit files of this host cannot be listed: {error}"),
                "running as root",
            ),
        );
        Units::default()
    });
    // A server that a restore starts anew is no writer.
    let servers: Vec<String> = raw
        .redis
        .iter()
        .flat_map(|list| list.get_ref())
        .filter_map(|redis| redis.get_ref().unit.as_ref())
        .map(|unit| unit.get_ref().clone())
        .collect();
    let (gitlab, defaults, found) = gitlab::check(
        &mut checker,
        &section,
        inner(raw.gitlab),
        gitlab::Context { host, units: &units, servers },
    );
    let schedule = schedule::check(
        &mut checker,
        &Section::of("schedule", raw.schedule.as_ref()),
        inner(raw.schedule),
    );
    let postgresql = postgresql::check(
        &mut checker,
        &Section::of("postgresql", raw.postgresql.as_ref()),
        inner(raw.postgresql),
        &defaults,
    );
    let redis = redis::check(&mut checker, raw.redis, &defaults);
    let files_section = Section::of("files", raw.files.as_ref());
    let files =
        files::check(&mut checker, &files_section, inner(raw.files), &gitlab.layout, &defaults);
    let repository_section = Section::of("repository", raw.repository.as_ref());
    let location = repository_section
        .field("location", raw.repository.as_ref().and_then(|raw| raw.get_ref().location.as_ref()));
    let repository = repository::check(&mut checker, &repository_section, inner(raw.repository));
    if let Some((place, message)) = files::unreadable(&files_section, &files, repository.engine) {
        checker.refuse(
            &place,
            Refusal::new(message, "engine = \"builtin\", or snapshot \"auto\" or \"none\""),
        );
    }
    let retention = retention::check(
        &mut checker,
        &Section::of("retention", raw.retention.as_ref()),
        inner(raw.retention),
    );
    let verify =
        verify::check(&mut checker, &Section::of("verify", raw.verify.as_ref()), inner(raw.verify));
    let monitoring = monitoring::check(
        &mut checker,
        &Section::of("monitoring", raw.monitoring.as_ref()),
        inner(raw.monitoring),
    );
    let steps = step::check(&mut checker, raw.step);

    let overlaps = |path: &&PathBuf| {
        repository.directory().is_some_and(|directory| rules::overlap(path, directory))
    };
    if let Some(taken) = files.paths.iter().find(overlaps) {
        let message = format!(
            "'{}' and '{}' of files.paths lie one inside the other: the backup would take itself",
            repository.location,
            taken.display()
        );
        checker
            .refuse(&location, Refusal::new(message, "a directory apart from all of files.paths"));
    }
    let source = source.to_owned();
    let config = Config {
        source,
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

fn inner<T: Default>(field: Field<T>) -> T {
    field.map(Spanned::into_inner).unwrap_or_default()
}

/// A table of the file, there or not.
struct Section {
    key: String,
    offset: Option<usize>,
}

impl Section {
    fn of<T>(key: impl Into<String>, table: Option<&Spanned<T>>) -> Self {
        Self { key: key.into(), offset: table.map(|table| table.span().start) }
    }

    /// Where a key is missing: at the table, if there is one.
    fn place(&self, name: &str) -> Place {
        Place { key: format!("{}.{name}", self.key), offset: self.offset }
    }

    /// Where a key's value is, or where it is missing.
    fn field<T>(&self, name: &str, field: Option<&Spanned<T>>) -> Place {
        Place { offset: field.map(|value| value.span().start).or(self.offset), ..self.place(name) }
    }
}

/// A key and where it stands.
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

    /// `None` for what was left out and for what was refused.
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

    /// Each element by itself; what was refused is left out. No value may stand in the list twice.
    fn list<U: PartialEq>(
        &mut self,
        section: &Section,
        name: &str,
        list: &List,
        rule: impl Fn(&String) -> Result<U, Refusal>,
    ) -> Option<Vec<(Place, U)>> {
        let mut taken: Vec<(Place, U)> = Vec::new();
        for (index, element) in list.as_ref()?.get_ref().iter().enumerate() {
            let place = section.field(&format!("{name}[{index}]"), Some(element));
            match rule(element.get_ref()) {
                Ok(value) => match taken.iter().find(|(_, other)| *other == value) {
                    Some((first, _)) => {
                        let refusal = Refusal::new(
                            format!(
                                "'{}' is there twice, first as {}",
                                element.get_ref(),
                                first.key
                            ),
                            "each once",
                        );
                        self.refuse(&place, refusal);
                    }
                    None => taken.push((place, value)),
                },
                Err(refusal) => self.refuse(&place, refusal),
            }
        }
        Some(taken)
    }

    /// argv with an absolute program.
    fn command(&mut self, section: &Section, list: &List) -> Option<Vec<String>> {
        self.named_command(section, "command", list)
    }

    /// argv under another name.
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

    /// `password-file` or `password-credential`.
    fn secret(
        &mut self,
        section: &Section,
        file: &Field<String>,
        credential: &Field<String>,
    ) -> Option<SecretSource> {
        self.named_secret(section, "password", file, credential)
    }

    /// `NAME-file` or `NAME-credential`.
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
