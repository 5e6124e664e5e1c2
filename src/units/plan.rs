//! The units that a configuration needs, and the members of each stage.

use super::row::{Steps, When};
use super::{Restore, Unit};
use crate::config::{Config, Stage};

/// The stages, in their order.
const STAGES: [Stage; 4] = [Stage::Prepare, Stage::Window, Stage::Store, Stage::Finish];

/// The units that a configuration needs.
#[derive(Debug)]
pub struct Plan<'a> {
    config: &'a Config,
}

impl<'a> Plan<'a> {
    /// All possible gates.
    pub const GATES: [Unit; 4] = [
        Unit::Drain,
        Unit::Background,
        Unit::Restore(Restore::Drain),
        Unit::Restore(Restore::Background),
    ];

    /// The plan of `config`.
    pub fn new(config: &'a Config) -> Self {
        Self { config }
    }

    /// The units that `stage` starts, each after those that it is ordered after. If there are none,
    /// the run has no such stage.
    pub fn members(&self, stage: Stage) -> Vec<Unit> {
        let steps = self.config.steps.iter().filter(|step| step.stage == stage);
        let steps = steps.map(|step| Unit::Step(step.name.clone()));
        self.units_at(When::Member(stage, Steps::Before))
            .chain(steps)
            .chain(self.units_at(When::Member(stage, Steps::After)))
            .collect()
    }

    /// The first units of a run, which check everything.
    pub fn preflights(&self) -> Vec<Unit> {
        self.units_at(When::Member(Stage::Prepare, Steps::Before)).collect()
    }

    /// The unit, if the configuration needs it.
    pub fn needed(&self, unit: Unit) -> Option<Unit> {
        (unit.row().needed)(self.config).then_some(unit)
    }

    /// The gates of the window of a backup or of a restore, which stop GitLab in phases.
    pub fn gates(&self, restore: bool) -> Vec<Unit> {
        let of_restore = |gate: &Unit| matches!(gate, Unit::Restore(_));
        let gates = Self::GATES.into_iter().filter(|gate| of_restore(gate) == restore);
        gates.filter_map(|gate| self.needed(gate)).collect()
    }

    /// The brackets in which a backup captures everything. A run opens one of them, or one after
    /// the other.
    pub fn windows(&self) -> Vec<Unit> {
        [Unit::Window].into_iter().chain(self.needed(Unit::Hold)).collect()
    }

    /// Whether the built-in file backup is used, and not a configured command.
    pub fn captures_files(&self) -> bool {
        self.needed(Unit::FsSnapshot).is_some()
    }

    /// The timers with a calendar: those that are no part of a run.
    pub fn timers(&self) -> Vec<Unit> {
        let free = self.units_at(When::Start).chain(self.alone());
        free.filter(|unit| unit.row().name.ends_with(".timer")).collect()
    }

    /// Every unit, in the order of a run; those independent of runs are last.
    pub fn units(&self) -> Vec<Unit> {
        let proxies =
            self.config.gitlab.proxies.iter().map(|proxy| Unit::Proxy(proxy.name.clone()));
        let stages = STAGES.into_iter().flat_map(|stage| self.stage(stage));
        let restore = Restore::PLAIN.iter().filter_map(|unit| self.needed(Unit::Restore(*unit)));
        self.units_at(When::Start)
            .chain(proxies)
            .chain(stages)
            .chain(self.units_at(When::End))
            .chain(restore)
            .chain(self.alone())
            .collect()
    }

    /// The target of `stage` and all units that belong to the stage; empty if the run has no such
    /// stage.
    pub(super) fn stage(&self, stage: Stage) -> Vec<Unit> {
        let members = self.members(stage);
        if members.is_empty() {
            return members;
        }
        [Unit::Stage(stage)]
            .into_iter()
            .chain(self.units_at(When::PulledIn(stage)))
            .chain(members)
            .chain(self.units_at(When::Behind(stage)))
            .collect()
    }

    /// The units that are independent of runs.
    pub(super) fn alone(&self) -> impl Iterator<Item = Unit> {
        self.units_at(When::Alone)
    }

    /// The steps of a restore, each after those that it is ordered after.
    pub fn restore(&self) -> Vec<Restore> {
        Restore::steps().filter(|unit| (unit.row().needed)(self.config)).collect()
    }

    /// The steps of a restore that load everything beside the live data.
    pub fn loads(&self) -> Vec<Restore> {
        self.restore().into_iter().filter(|unit| !unit.replaces()).collect()
    }

    /// The steps of a restore that need GitLab to be down.
    pub fn replaces(&self) -> Vec<Restore> {
        self.restore().into_iter().filter(|unit| unit.replaces()).collect()
    }

    /// The needed units at this place of a run.
    fn units_at(&self, when: When) -> impl Iterator<Item = Unit> {
        Unit::PLAIN
            .iter()
            .filter(move |unit| unit.row().when == when)
            .filter_map(|unit| self.needed(unit.clone()))
    }
}

impl Restore {
    /// All possible steps, in their order.
    pub fn steps() -> impl Iterator<Item = Self> {
        let all = Self::PLAIN.iter().copied();
        all.filter(|unit| matches!(unit.row().when, When::Member(..)))
    }

    /// Whether the step needs GitLab to be down.
    fn replaces(self) -> bool {
        matches!(self, Self::ProxiesDown | Self::Switch)
    }
}
