//! What is said of a unit, in one place.

use super::Unit;
use super::render::Renderer;
use crate::config::{Config, Stage};

/// All that there is to know of a unit, but for what its helper does.
pub struct Row {
    /// Its name; `{}` stands for that of a step or of a proxy.
    pub name: &'static str,
    /// Where it has its place.
    pub when: When,
    /// Whether a configuration needs it.
    pub needed: fn(&Config) -> bool,
    /// Its text.
    pub text: fn(&Renderer<'_>, &Unit) -> askama::Result<String>,
}

/// When a run meets a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Before the stages.
    Start,
    /// Started by the target of a stage, before the user's own steps of that stage or after them.
    Member(Stage, Steps),
    /// Pulled in by what happens in a stage.
    Around(Stage),
    /// Asked for when a stage is over.
    Behind(Stage),
    /// After a run.
    End,
    /// No part of any.
    Alone,
}

/// On which side of the user's own steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Steps {
    /// They come later.
    Before,
    /// They come first.
    After,
}

/// For what every configuration needs.
pub(super) fn always(_: &Config) -> bool {
    true
}

/// For what every configuration with files of ours needs.
pub(super) fn captures_files(config: &Config) -> bool {
    config.files.command.is_none()
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
