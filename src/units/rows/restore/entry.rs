//! The units that start a restore, and those that last for the whole restore.

use std::path::Path;

use askama::Template;

use super::{REPLACE, helper, names, replacing, step};
use crate::config::EngineName;
use crate::paths;
use crate::units::render::Sandbox;
use crate::units::render::kinds::{Bracket, EntryTarget, Run};
use crate::units::render::step::StepService;
use crate::units::row::{Row, When, always};
use crate::units::text::Text;
use crate::units::{Restore, Unit};

/// To connect to servers as their users, and to give these users the files of a rehearsal.
const REHEARSE: &str =
    "CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_CHOWN CAP_KILL CAP_SETUID CAP_SETGID";

pub const TARGET: Row = Row {
    name: "gitlab-backup-restore.target",
    when: When::Start,
    needed: always,
    text: |_, _| EntryTarget { description: "GitLab restore", run: names([Restore::Run]) }.render(),
};

pub const RUN: Row = Row {
    name: "gitlab-backup-restore-run.service",
    when: When::Start,
    needed: always,
    text: |renderer, _| {
        let silence = renderer.plan.needed(Unit::Silence);
        Run {
            description: "GitLab restore: run the stages",
            target: names([Restore::Target]),
            requires: Text::names([Unit::Staging, Restore::Staging.into()]),
            execute: helper(renderer, &["execute"]),
            conclude: helper(renderer, &["conclude"]),
            wants: Text::some_names(silence.clone()),
            silence: silence.is_some(),
            report: false,
            sandbox: Sandbox {
                network: renderer.redis_by_network(),
                processes: renderer.redis_by_network(),
                writable: Some(Text::paths([Path::new(paths::RUNTIME)])),
                // To find the server behind Redis' socket, which only GitLab may use.
                ..renderer.sandbox("CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_SETUID CAP_SETGID")
            },
        }
        .render()
    },
};

pub const STAGING: Row = Row {
    name: "gitlab-backup-restore-staging.service",
    when: When::Start,
    needed: always,
    text: |renderer, _| {
        Bracket {
            description: "GitLab restore: extracted data, removed unless put in place",
            begin: helper(renderer, &["begin"]),
            end: helper(renderer, &["unstage"]),
            credentials: renderer.credentials(false, true, true),
            sandbox: replacing(renderer, REPLACE),
        }
        .render()
    },
};

pub const PREFLIGHT: Row = Row {
    name: "gitlab-backup-restore-preflight.service",
    when: When::Start,
    needed: always,
    text: |renderer, _| {
        let config = renderer.config;
        let by_restic = config.repository.engine == EngineName::Restic;
        StepService {
            description: Text::plain("GitLab restore: preflight checks"),
            exec: helper(renderer, &["preflight"]),
            credentials: renderer.credentials(true, true, true),
            mounts: renderer.repository_path(),
            after: Text::names([Unit::Staging]),
            requires: Text::names([Unit::Staging]),
            binds_to: names([Restore::Run]),
            sandbox: Some(Sandbox {
                network: renderer.servers_by_network() || renderer.repository_path().is_none(),
                foreign: by_restic || config.postgresql.is_some(),
                ..replacing(renderer, REHEARSE)
            }),
            ..step(renderer, Vec::new())
        }
        .render()
    },
};
