//! The units that start a run, and those that last for the whole run.

use std::path::Path;

use askama::Template;

use crate::paths;
use crate::units::Unit;
use crate::units::render::kinds::{Bracket, EntryTarget, Run, Timer};
use crate::units::render::{Renderer, Sandbox};
use crate::units::row::{Row, When, always};
use crate::units::text::Text;

pub const TIMER: Row = Row {
    name: "gitlab-backup-run.timer",
    when: When::Start,
    needed: always,
    text: |renderer, _| {
        Timer {
            description: Text::plain("GitLab backup schedule"),
            calendar: Text::plain(&renderer.config.schedule.calendar),
            randomized_delay: Text::plain(renderer.config.schedule.randomized_delay),
            unit: Text::names([Unit::Target]),
        }
        .render()
    },
};

pub const CALENDAR: Row = Row {
    name: "gitlab-backup-calendar.service",
    when: When::Start,
    needed: always,
    text: |renderer, _| {
        Calendar {
            exec: calendar_command(renderer)?,
            sandbox: Sandbox { bus: false, ..renderer.sandbox("") },
        }
        .render()
    },
};

#[derive(Template)]
#[template(path = "calendar.service")]
struct Calendar {
    exec: Text,
    sandbox: Sandbox,
}

/// The command line with the calendar of each timer.
fn calendar_command(renderer: &Renderer<'_>) -> askama::Result<Text> {
    let config = renderer.config;
    let mut words = vec!["calendar".to_owned()];
    for timer in renderer.plan.timers() {
        let calendar = match timer {
            Unit::Timer => Some(config.schedule.calendar.as_str()),
            Unit::VerifyTimer => config.verify.calendar.as_deref(),
            _ => None,
        };
        let calendar =
            calendar.ok_or_else(|| askama::Error::custom(format!("{timer} has no calendar")))?;
        words.push(format!("{timer}={calendar}"));
    }
    Ok(renderer.helper(&words.iter().map(String::as_str).collect::<Vec<_>>()))
}

pub const TARGET: Row = Row {
    name: "gitlab-backup.target",
    when: When::Start,
    needed: always,
    text: |_, _| {
        EntryTarget { description: "GitLab backup", run: Text::names([Unit::Run]) }.render()
    },
};

pub const RUN: Row = Row {
    name: "gitlab-backup-run.service",
    when: When::Start,
    needed: always,
    text: |renderer, _| {
        let reports = renderer.plan.needed(Unit::Report).is_some();
        let conclude: &[&str] = if reports { &["conclude", "--report"] } else { &["conclude"] };
        let silence = renderer.plan.needed(Unit::Silence);
        let start = renderer.plan.needed(Unit::ReportStart);
        Run {
            description: "GitLab backup: run the stages",
            target: Text::names([Unit::Target]),
            requires: Text::names([Unit::Staging]),
            execute: renderer.helper(&["execute"]),
            conclude: renderer.helper(conclude),
            wants: Text::some_names([silence.clone(), start].into_iter().flatten()),
            silence: silence.is_some(),
            report: reports,
            sandbox: Sandbox {
                writable: Some(Text::paths([Path::new(paths::RUNTIME)])),
                ..renderer.sandbox("")
            },
        }
        .render()
    },
};

pub const STAGING: Row = Row {
    name: "gitlab-backup-staging.service",
    when: When::Start,
    needed: always,
    text: |renderer, _| {
        Bracket {
            description: "GitLab backup staging directory",
            begin: renderer.helper(&["staging", "begin"]),
            end: renderer.helper(&["staging", "end"]),
            credentials: Vec::new(),
            sandbox: Sandbox {
                bus: false,
                ..renderer.sandbox("CAP_CHOWN CAP_DAC_OVERRIDE CAP_FOWNER")
            },
        }
        .render()
    },
};
