//! A `[[step]]` of the configuration: a program with the privileges of its user, without a sandbox
//! that could break it.

use askama::Template;

use crate::config::{Stage, Step};
use crate::units::Unit;
use crate::units::render::Renderer;
use crate::units::render::step::StepService;
use crate::units::row::{Row, Steps, When, always};
use crate::units::text::Text;

pub const STEP: Row = Row {
    name: "gitlab-backup-step-{}.service",
    when: When::Member(Stage::Prepare, Steps::After),
    needed: always,
    text: |renderer, unit| {
        let named = |step: &&Step| matches!(unit, Unit::Step(name) if *name == step.name);
        match renderer.config.steps.iter().find(named) {
            Some(step) => service(renderer, step).render(),
            None => Err(askama::Error::custom(format!("{unit} is not configured"))),
        }
    },
};

fn service(renderer: &Renderer<'_>, step: &Step) -> StepService {
    let in_window = step.stage == Stage::Window;
    let before: Vec<Unit> = match step.stage {
        Stage::Prepare => renderer.plan.preflights(),
        Stage::Window => vec![Unit::Window],
        Stage::Store => renderer.plan.needed(Unit::Postgresql).into_iter().collect(),
        Stage::Finish => renderer.plan.needed(Unit::Prune).into_iter().collect(),
    };
    // A step in the window needs no requirement, because `BindsTo=` includes it. A step after a
    // complete run must also run if prune failed.
    let ordered = StepService::base();
    let ordered = match step.stage {
        Stage::Window | Stage::Finish => ordered.after(before),
        Stage::Prepare | Stage::Store => ordered.requiring(before),
    };
    StepService {
        description: Text::prose(step.description.as_deref().unwrap_or(&step.name)),
        exec: Text::command(&step.command),
        binds_to: match in_window {
            true => Text::names([Unit::Window, Unit::Run]),
            false => Text::names([Unit::Run]),
        },
        user: step.user.as_ref().map(|user| Text::names([user])),
        timeout: Text::plain(step.timeout),
        stop_timeout: in_window.then(|| Text::plain(renderer.config.gitlab.stop_grace)),
        staging: Some(Text::plain(format!("steps/{}", step.name))),
        idle: !in_window,
        outside: true,
        ..ordered
    }
}
