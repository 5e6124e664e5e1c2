//! The description of a unit.

use super::Unit;
use super::render::Renderer;
use crate::config::{Config, Quiesce, Stage};

/// Describes a unit, except what its helper does.
pub struct Row {
    /// The unit's name; `{}` is replaced by the name of a step or of a proxy.
    pub name: &'static str,
    /// The unit's place in a run.
    pub when: When,
    /// Whether a configuration needs the unit.
    pub needed: fn(&Config) -> bool,
    /// Renders the unit file.
    pub text: fn(&Renderer<'_>, &Unit) -> askama::Result<String>,
}

/// The place of a unit in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Before the stages.
    Start,
    /// Started by the target of a stage, before or after the configured steps of that stage.
    Member(Stage, Steps),
    /// Pulled in by a member of a stage, or the stage's target itself.
    PulledIn(Stage),
    /// Started at the end of a stage.
    Behind(Stage),
    /// After a run.
    End,
    /// Independent of runs.
    Alone,
}

/// The position relative to the configured steps of a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Steps {
    /// Before the configured steps.
    Before,
    /// After the configured steps.
    After,
}

/// `needed` for units of every configuration.
pub(super) fn always(_: &Config) -> bool {
    true
}

/// `needed` for units of the built-in file backup.
pub(super) fn captures_files(config: &Config) -> bool {
    config.files.command.is_none()
}

/// `needed` for units of a backup that holds GitLab still.
pub(super) fn holds(config: &Config) -> bool {
    config.gitlab.quiesce == Quiesce::Hold
}

pub(super) fn postgresql(config: &Config) -> bool {
    config.postgresql.is_some()
}

pub(super) fn proxies(config: &Config) -> bool {
    !config.gitlab.proxies.is_empty()
}

pub(super) fn silences(config: &Config) -> bool {
    !config.monitoring.silences.is_empty()
}
