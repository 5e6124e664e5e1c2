//! The targets of the stages: what each starts.

use askama::Template;

use crate::config::Stage;
use crate::units::Unit;
use crate::units::render::Renderer;
use crate::units::render::kinds::StageTarget;
use crate::units::row::{Row, When, always};
use crate::units::text::Text;

pub const PREPARE: Row = Row {
    name: "gitlab-backup-prepare.target",
    when: When::Around(Stage::Prepare),
    needed: always,
    text: |renderer, _| {
        let description = "GitLab backup: everything that can be done before GitLab is stopped";
        target(renderer, Stage::Prepare, description)
    },
};

pub const CAPTURE: Row = Row {
    name: "gitlab-backup-capture.target",
    when: When::Around(Stage::Window),
    needed: always,
    text: |renderer, _| target(renderer, Stage::Window, "GitLab backup: every part is captured"),
};

pub const STORE: Row = Row {
    name: "gitlab-backup-store.target",
    when: When::Around(Stage::Store),
    needed: always,
    text: |renderer, _| {
        target(renderer, Stage::Store, "GitLab backup: everything is in the repository")
    },
};

pub const FINISH: Row = Row {
    name: "gitlab-backup-finish.target",
    when: When::Around(Stage::Finish),
    needed: always,
    text: |renderer, _| {
        target(renderer, Stage::Finish, "GitLab backup: what follows a complete run")
    },
};

fn target(
    renderer: &Renderer<'_>,
    stage: Stage,
    description: &'static str,
) -> askama::Result<String> {
    StageTarget {
        description,
        members: Text::names(renderer.plan.members(stage)),
        window: (stage == Stage::Window).then(|| Text::names([Unit::Window])),
    }
    .render()
}
