//! The gates: units whose stop makes the stops of GitLab's units wait, so that GitLab is stopped in
//! phases.
//!
//! All stops of a window are one transaction. A gate is active before it, conflicts with the
//! window, and has `After=` for the units of its phase and later ones. systemd stops in the reverse
//! order of starts, so the gate's `ExecStop=` ends before those units are stopped. The gate has no
//! other order, so it can be part of no cycle.

use std::path::Path;

use askama::Template;

use crate::config::{Config, Gitlab, Phase, Stage};
use crate::paths;
use crate::units::render::{Renderer, Sandbox};
use crate::units::row::{Row, When};
use crate::units::text::Text;
use crate::units::{Restore, Unit};
use crate::values::UnitName;

/// To signal the processes of git, and to see in which phase a push is.
const DRAIN_RIGHTS: &str = "CAP_KILL CAP_SYS_PTRACE CAP_DAC_READ_SEARCH";

pub const DRAIN: Row = Row {
    name: "gitlab-backup-drain.service",
    when: When::PulledIn(Stage::Window),
    needed: |config| stops(config) && drains(config),
    text: |renderer, _| drain(renderer, Unit::Run, &["drain"]),
};

pub const BACKGROUND: Row = Row {
    name: "gitlab-backup-background.service",
    when: When::PulledIn(Stage::Window),
    needed: |config| stops(config) && has_background(config),
    text: |renderer, _| background(renderer, Unit::Run, &["background"]),
};

pub const RESTORE_DRAIN: Row = Row {
    name: "gitlab-backup-restore-drain.service",
    when: When::PulledIn(Stage::Window),
    needed: drains,
    text: |renderer, _| drain(renderer, Restore::Run.into(), &["drain", "--restore"]),
};

pub const RESTORE_BACKGROUND: Row = Row {
    name: "gitlab-backup-restore-background.service",
    when: When::PulledIn(Stage::Window),
    needed: has_background,
    text: |renderer, _| background(renderer, Restore::Run.into(), &["background", "--restore"]),
};

fn stops(config: &Config) -> bool {
    config.gitlab.quiesce.may_stop()
}

fn drains(config: &Config) -> bool {
    (has(config, Phase::Door) || has(config, Phase::Gitaly))
        && held_by_drain(&config.gitlab).next().is_some()
}

fn has_background(config: &Config) -> bool {
    has(config, Phase::Web) && has(config, Phase::Background)
}

fn has(config: &Config, phase: Phase) -> bool {
    config.gitlab.in_phase(phase).next().is_some()
}

/// The units that go on until the drain has ended. The stop command of a proxied Gitaly lets it end
/// what is in progress, so it is not held: the drain waits for it.
fn held_by_drain(gitlab: &Gitlab) -> impl Iterator<Item = &UnitName> {
    gitlab.writers.iter().filter(|unit| match gitlab.phase(unit) {
        None | Some(Phase::Door) => false,
        Some(Phase::Gitaly) => !gitlab.is_proxy(unit),
        Some(Phase::Web | Phase::Background) => true,
    })
}

fn drain(renderer: &Renderer<'_>, run: Unit, words: &[&str]) -> askama::Result<String> {
    Gate {
        description: "GitLab backup: Gitaly ends what is in progress before GitLab is stopped",
        held: Text::names(held_by_drain(&renderer.config.gitlab)),
        run: Text::names([run]),
        exec: renderer.helper(words),
        sandbox: Sandbox {
            processes: true,
            writable: Some(Text::paths([Path::new(paths::RUNTIME)])),
            ..renderer.sandbox(DRAIN_RIGHTS)
        },
    }
    .render()
}

fn background(renderer: &Renderer<'_>, run: Unit, words: &[&str]) -> askama::Result<String> {
    Gate {
        description: "GitLab backup: background jobs go on until the web is stopped",
        held: Text::names(renderer.config.gitlab.in_phase(Phase::Background)),
        run: Text::names([run]),
        exec: renderer.helper(words),
        sandbox: renderer.sandbox(""),
    }
    .render()
}

#[derive(Template)]
#[template(path = "gate.service")]
struct Gate {
    description: &'static str,
    /// The units that are stopped after this one.
    held: Text,
    run: Text,
    exec: Text,
    sandbox: Sandbox,
}
