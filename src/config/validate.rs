//! Raw → validated: a file per section, each of which reports what it refuses and goes on, so that
//! one run shows everything.

mod files;
mod gitlab;
mod postgresql;
mod proxy;
mod redis;
mod repository;
mod retention;
mod schedule;
mod step;
mod verify;

use std::path::{Path, PathBuf};

use super::Config;
use super::found::Defaults;
use super::host::Host;
use super::raw::Raw;
use super::unit_files::Units;
use crate::monitoring;
use crate::schema::rules::{self, Refusal};
use crate::schema::{Checker, Finding, Place, Section, inner};
pub(super) use rules::path;

/// Judges `raw`. What is refused stands in the findings and has a stand-in in the returned value,
/// which is only good without findings.
pub(super) fn config(raw: Raw, text: &str, source: &Path, host: &Host) -> (Config, Vec<Finding>) {
    let mut checker = Checker::new(text);
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
    (config, checker.into_findings())
}
