//! The steps that replace the live data by the restored data, and those that undo this.

use askama::Template;

use super::{REPLACE, helper, loading, names, replacing, replacing_step, step};
use crate::config::Stage;
use crate::units::render::Sandbox;
use crate::units::render::step::StepService;
use crate::units::row::{Row, Steps, When, always, proxies};
use crate::units::rows::proxies::ensure_down;
use crate::units::text::Text;
use crate::units::{Restore, Unit};
use crate::values::Timespan;

/// The time limit for the renames in seconds, in addition to the start of the Redis servers.
const RENAMES: u64 = 30 * 60;

pub const UNDO: Row = Row {
    name: "gitlab-backup-restore-undo.service",
    when: When::Member(Stage::Window, Steps::After),
    needed: always,
    text: |renderer, _| {
        StepService {
            description: Text::plain("GitLab restore: undo an unfinished restore"),
            exec: helper(renderer, &["undo"]),
            credentials: renderer.credentials(false, true, true),
            idle: false,
            ..loading(renderer, [])
        }
        .render()
    },
};

pub const PROXIES_DOWN: Row = Row {
    name: "gitlab-backup-restore-proxies-down.service",
    when: When::Member(Stage::Window, Steps::After),
    needed: proxies,
    text: |renderer, _| {
        let step = replacing_step(renderer, Restore::ProxiesDown);
        // Without a sandbox, as in a backup.
        StepService {
            after: step.after,
            requires: step.requires,
            binds_to: step.binds_to,
            ..ensure_down(renderer)
        }
        .render()
    },
};

pub const SWITCH: Row = Row {
    name: "gitlab-backup-restore-switch.service",
    when: When::Member(Stage::Window, Steps::After),
    needed: always,
    text: |renderer, _| {
        let servers: u64 =
            renderer.config.redis.iter().map(|redis| redis.timeout.duration().as_secs()).sum();
        StepService {
            description: Text::plain("GitLab restore: put the restored data in place"),
            exec: helper(renderer, &["switch"]),
            credentials: renderer.credentials(false, true, true),
            timeout: Text::plain(Timespan::from_secs(RENAMES + servers)),
            ..replacing_step(renderer, Restore::Switch)
        }
        .render()
    },
};

pub const FINISH: Row = Row {
    name: "gitlab-backup-restore-finish.service",
    when: When::End,
    needed: always,
    text: |renderer, _| {
        StepService {
            description: Text::plain("GitLab restore: delete the old data"),
            exec: helper(renderer, &["finish"]),
            credentials: renderer.credentials(false, true, true),
            retry: Some(10),
            after: Text::names([Unit::Staging]),
            // Not bound to the executor: it also runs when GitLab is ready late, or before the next
            // run.
            binds_to: names([]),
            requires: names([]),
            sandbox: Some(Sandbox {
                bus: false,
                processes: false,
                network: renderer.postgresql_by_network() || renderer.readiness_by_network(),
                ..replacing(renderer, REPLACE)
            }),
            ..step(renderer, Vec::new())
        }
        .render()
    },
};
