//! The steps that store everything in the repository while GitLab is up.

use std::path::{Path, PathBuf};

use askama::Template;

use crate::config::Stage;
use crate::paths;
use crate::units::Unit;
use crate::units::render::Sandbox;
use crate::units::render::step::StepService;
use crate::units::row::{Row, Steps, When, always, postgresql};
use crate::units::text::Text;
use crate::values::Timespan;

/// The time limit for reading and storing data of any size.
const LONG: Timespan = Timespan::from_secs(24 * 3600);

pub const POSTGRESQL: Row = Row {
    name: "gitlab-backup-postgresql.service",
    when: When::Member(Stage::Store, Steps::Before),
    needed: postgresql,
    text: |renderer, _| {
        let step = renderer.postgresql_step(StepService {
            description: Text::plain(
                "GitLab backup: dump PostgreSQL from the held snapshot, GitLab is up",
            ),
            exec: renderer.helper(&["postgresql"]),
            binds_to: Text::names([Unit::PgSnapshot, Unit::Run]),
            timeout: Text::plain(LONG),
            retry: Some(5),
            staging: Some(Text::plain("postgresql")),
            idle: true,
            ..StepService::base().after([Unit::PgSnapshot])
        });
        // It notifies the process that holds the snapshots of finished dumps.
        let writable = Some(Text::paths([Path::new(paths::PGSNAPSHOT)]));
        let sandbox = step.sandbox.map(|sandbox| Sandbox { writable, ..sandbox });
        StepService { sandbox, ..step }.render()
    },
};

pub const FILES: Row = Row {
    name: "gitlab-backup-files.service",
    when: When::Member(Stage::Store, Steps::After),
    needed: always,
    text: |renderer, unit| {
        let step = StepService {
            description: Text::plain(
                "GitLab backup: store the files and the dumps in the repository",
            ),
            exec: renderer.helper(&["files"]),
            timeout: Text::plain(LONG),
            retry: Some(10),
            idle: true,
            ..StepService::base().requiring(renderer.before(Stage::Store, unit))
        };
        renderer.repository_step(step).render()
    },
};

pub const MANIFEST: Row = Row {
    name: "gitlab-backup-manifest.service",
    when: When::Member(Stage::Store, Steps::After),
    needed: always,
    text: |renderer, _| {
        let step = StepService {
            description: Text::plain(
                "GitLab backup: write the manifest, which makes the run complete",
            ),
            exec: renderer.helper(&["manifest"]),
            timeout: Text::plain(LONG),
            retry: Some(10),
            ..StepService::base().requiring(vec![Unit::Files])
        };
        renderer.repository_step(step).render()
    },
};

pub const PRUNE: Row = Row {
    name: "gitlab-backup-prune.service",
    when: When::Member(Stage::Finish, Steps::Before),
    needed: |config| config.retention.is_set(),
    text: |renderer, _| {
        let step = renderer.repository_step(StepService {
            description: Text::plain("GitLab backup: remove runs that the retention does not keep"),
            exec: renderer.helper(&["prune"]),
            timeout: Text::plain(LONG),
            retry: Some(10),
            idle: true,
            ..StepService::base()
        });
        // It notes the removal in the records of the runs.
        let places = renderer.repository_paths().into_iter().chain([PathBuf::from(paths::RUNS)]);
        let writable = renderer.writable(places);
        let sandbox = step.sandbox.map(|sandbox| Sandbox { writable, ..sandbox });
        StepService { sandbox, ..step }.render()
    },
};
