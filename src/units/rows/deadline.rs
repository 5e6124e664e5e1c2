//! The units that limit the downtime.

use askama::Template;

use crate::config::Stage;
use crate::units::row::{Row, When, always};
use crate::units::text::Text;

pub const TIMER: Row = Row {
    name: "gitlab-backup-deadline.timer",
    when: When::PulledIn(Stage::Window),
    needed: always,
    text: |renderer, _| {
        DeadlineTimer { max_downtime: Text::plain(renderer.config.gitlab.max_downtime) }.render()
    },
};

#[derive(Template)]
#[template(path = "deadline.timer")]
struct DeadlineTimer {
    max_downtime: Text,
}

pub const TARGET: Row = Row {
    name: "gitlab-backup-deadline.target",
    when: When::PulledIn(Stage::Window),
    needed: always,
    text: |_, _| DeadlineTarget.render(),
};

#[derive(Template)]
#[template(path = "deadline.target")]
struct DeadlineTarget;
