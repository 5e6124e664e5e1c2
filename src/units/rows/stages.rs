//! The targets of the stages.

use askama::Template;

use crate::config::Stage;
use crate::units::Unit;
use crate::units::render::Renderer;
use crate::units::render::kinds::StageTarget;
use crate::units::row::{Row, When, always, holds};
use crate::units::text::Text;

/// The row of the target of a stage.
pub fn row(stage: Stage) -> &'static Row {
    match stage {
        Stage::Prepare => &PREPARE,
        Stage::Window => &CAPTURE,
        Stage::Store => &STORE,
        Stage::Finish => &FINISH,
    }
}

const PREPARE: Row = Row {
    name: "gitlab-backup-prepare.target",
    when: When::PulledIn(Stage::Prepare),
    needed: always,
    text: |renderer, _| {
        target(renderer, Stage::Prepare, "GitLab backup: prepare stage, GitLab is up")
    },
};

const CAPTURE: Row = Row {
    name: "gitlab-backup-capture.target",
    when: When::PulledIn(Stage::Window),
    needed: always,
    text: |renderer, _| {
        let window = Some(Unit::Window);
        members(renderer, Stage::Window, "GitLab backup: capture stage, GitLab is down", window)
    },
};

pub const CAPTURE_HELD: Row = Row {
    name: "gitlab-backup-capture-held.target",
    when: When::PulledIn(Stage::Window),
    needed: holds,
    text: |renderer, _| {
        let window = Some(Unit::Hold);
        members(
            renderer,
            Stage::Window,
            "GitLab backup: capture stage, GitLab is held still",
            window,
        )
    },
};

const STORE: Row = Row {
    name: "gitlab-backup-store.target",
    when: When::PulledIn(Stage::Store),
    needed: always,
    text: |renderer, _| {
        target(renderer, Stage::Store, "GitLab backup: store stage, GitLab is up again")
    },
};

const FINISH: Row = Row {
    name: "gitlab-backup-finish.target",
    when: When::PulledIn(Stage::Finish),
    needed: always,
    text: |renderer, _| {
        target(renderer, Stage::Finish, "GitLab backup: finish stage, the run is complete")
    },
};

fn target(
    renderer: &Renderer<'_>,
    stage: Stage,
    description: &'static str,
) -> askama::Result<String> {
    members(renderer, stage, description, None)
}

/// A target of the members of a stage, in a window if there is one.
fn members(
    renderer: &Renderer<'_>,
    stage: Stage,
    description: &'static str,
    window: Option<Unit>,
) -> askama::Result<String> {
    StageTarget {
        description,
        members: Text::names(renderer.plan.members(stage)),
        window: window.map(|window| Text::names([window])),
    }
    .render()
}
