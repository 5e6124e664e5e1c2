//! The units of the window of a restore.

use askama::Template;

use super::names;
use crate::config::Stage;
use crate::units::render::kinds::{Pause, StageTarget, WindowService};
use crate::units::row::{Row, When, always};
use crate::units::text::Text;
use crate::units::{Restore, Unit};

pub const LOAD: Row = Row {
    name: "gitlab-backup-restore-load.target",
    when: When::PulledIn(Stage::Window),
    needed: always,
    text: |renderer, _| {
        StageTarget {
            description: "GitLab restore: all restored data is beside the live data, GitLab is up",
            members: Text::names(renderer.plan.loads().into_iter().map(Unit::Restore)),
            window: None,
        }
        .render()
    },
};

pub const REPLACE: Row = Row {
    name: "gitlab-backup-restore-replace.target",
    when: When::PulledIn(Stage::Window),
    needed: always,
    text: |renderer, _| in_window(renderer.plan.replaces()),
};

pub const APPLY: Row = Row {
    name: "gitlab-backup-restore-apply.target",
    when: When::PulledIn(Stage::Window),
    needed: always,
    text: |renderer, _| in_window(renderer.plan.restore()),
};

/// A target of steps in the window.
fn in_window(steps: Vec<Restore>) -> askama::Result<String> {
    StageTarget {
        description: "GitLab restore: all restored data is in place",
        members: Text::names(steps.into_iter().map(Unit::Restore)),
        window: Some(names([Restore::Window])),
    }
    .render()
}

pub const PAUSE: Row = Row {
    name: "gitlab-backup-restore-pause.service",
    when: When::PulledIn(Stage::Window),
    needed: always,
    text: |renderer, _| {
        Pause {
            description: "GitLab restore: GitLab is paused and will be resumed unless it is half \
                          restored",
            run: names([Restore::Run]),
            begin: renderer.pause(true),
            end: renderer.helper(&["unpause"]),
            sandbox: renderer.sandbox(""),
        }
        .render()
    },
};

pub const WINDOW: Row = Row {
    name: "gitlab-backup-restore-window.service",
    when: When::PulledIn(Stage::Window),
    needed: always,
    text: |renderer, _| {
        WindowService {
            description: "GitLab restore: GitLab is down",
            note: None,
            // A restore stops the writers even if a backup freezes them.
            writers: Some(renderer.stopped(true)),
            thaw: None,
            run: names([Restore::Run]),
            pause: names([Restore::Pause]),
            deadline: None,
            exec: renderer.helper(&["window", "--stopped"]),
            timeout: renderer.window_timeout(true),
            sandbox: renderer.sandbox(""),
        }
        .render()
    },
};
