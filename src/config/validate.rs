//! Raw → validated. Each section has its own file. A section reports what it refuses and continues,
//! so that one run shows every error.

mod files;
mod gitlab;
mod hold;
mod phases;
mod postgresql;
mod proxy;
mod redis;
mod repository;
mod retention;
mod schedule;
mod step;
mod verify;

use std::path::{Path, PathBuf};

use toml::Spanned;

use super::found::Defaults;
use super::host::Host;
use super::raw::{self, Raw};
use super::unit_files::Units;
use super::{Config, Repository};
use crate::monitoring;
use crate::schema::rules::{self, Refusal};
use crate::schema::{Checker, Field, KeyPlace, Problem, Section};
pub(super) use rules::path;

/// Validates `raw`, which was parsed from `text`. The returned configuration is only usable if
/// there are no findings: every refused value has a placeholder in it.
pub(super) fn config(raw: Raw, text: &str, source: &Path, host: &Host) -> (Config, Vec<Problem>) {
    let mut checker = Checker::new(text);
    let gitlab_section = Section::of("gitlab", raw.gitlab.as_ref());
    let files_section = Section::of("files", raw.files.as_ref());
    let location = Section::of("repository", raw.repository.as_ref())
        .field("location", raw.repository.as_ref().and_then(|raw| raw.get_ref().location.as_ref()));

    let units = list_units(&mut checker, &gitlab_section, host);
    let is_command = step::is_in_window(&raw.step)
        || raw.files.as_ref().is_some_and(|files| files.get_ref().command.is_some());
    let redis_units = redis_units(&raw.redis);
    let context = gitlab::Context { host, units: &units, redis_units, is_command };
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
    (config, checker.into_findings())
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
    location: &KeyPlace,
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
