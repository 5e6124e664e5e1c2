//! The steps before GitLab is stopped.

use askama::Template;

use crate::config::Stage;
use crate::units::render::Sandbox;
use crate::units::render::step::StepService;
use crate::units::row::{Row, Steps, When, always, captures_files, postgresql};
use crate::units::text::Text;
use crate::values::Timespan;

pub const PREFLIGHT: Row = Row {
    name: "gitlab-backup-preflight.service",
    when: When::Member(Stage::Prepare, Steps::Before),
    needed: always,
    text: |renderer, _| {
        let by_network = renderer.servers_by_network()
            || renderer.repository_path().is_none()
            || renderer.readiness_by_network();
        StepService {
            description: Text::plain("GitLab backup: preflight checks"),
            exec: renderer.helper(&["preflight"]),
            // It waits while another process has locked the repository.
            timeout: Text::plain(Timespan::from_secs(24 * 3600)),
            credentials: renderer.credentials(true, false, true),
            mounts: renderer.repository_path(),
            sandbox: Some(Sandbox {
                network: by_network,
                processes: renderer.redis_by_network(),
                foreign: true,
                writable: renderer.repository_writable(),
                // To connect to sockets that only GitLab may use, and to read Redis' files as its
                // user.
                ..renderer.sandbox("CAP_DAC_READ_SEARCH CAP_DAC_OVERRIDE CAP_SETUID CAP_SETGID")
            }),
            ..StepService::base()
        }
        .render()
    },
};

pub const PREFLIGHT_POSTGRESQL: Row = Row {
    name: "gitlab-backup-preflight-postgresql.service",
    when: When::Member(Stage::Prepare, Steps::Before),
    needed: postgresql,
    text: |renderer, _| {
        let step = StepService {
            description: Text::plain("GitLab backup: preflight checks of PostgreSQL"),
            exec: renderer.helper(&["preflight-postgresql"]),
            ..StepService::base()
        };
        renderer.postgresql_step(step).render()
    },
};

pub const FSPLAN: Row = Row {
    name: "gitlab-backup-fsplan.service",
    when: When::Member(Stage::Prepare, Steps::After),
    needed: captures_files,
    text: |renderer, unit| {
        StepService {
            notes: renderer.methods(),
            description: Text::plain("GitLab backup: decide how each path is captured"),
            exec: renderer.helper(&["fsplan"]),
            sandbox: Some(renderer.snapshots()),
            ..StepService::base().requiring(renderer.before(Stage::Prepare, unit))
        }
        .render()
    },
};

pub const PRESYNC: Row = Row {
    name: "gitlab-backup-presync.service",
    when: When::Member(Stage::Prepare, Steps::After),
    needed: |config| config.files.presync && captures_files(config),
    text: |renderer, unit| {
        let step = StepService {
            description: Text::plain("GitLab backup: first pass of the file backup, GitLab is up"),
            exec: renderer.helper(&["presync"]),
            timeout: Text::plain(Timespan::from_secs(24 * 3600)),
            retry: Some(10),
            idle: true,
            ..StepService::base().requiring(renderer.before(Stage::Prepare, unit))
        };
        renderer.repository_step(step).render()
    },
};
