//! Which units a configuration needs and what each stage is made of.

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
    /// The plan of `config`.
    pub fn new(config: &'a Config) -> Self {
        Self { config }
    }

    /// What `stage` starts, in an order in which every unit comes after those it is ordered after.
    /// Empty: there is no such stage.
    pub fn members(&self, stage: Stage) -> Vec<Unit> {
        let steps = self.config.steps.iter().filter(|step| step.stage == stage);
        let steps = steps.map(|step| Unit::Step(step.name.clone()));
        self.at(When::Member(stage, Steps::Before))
            .chain(steps)
            .chain(self.at(When::Member(stage, Steps::After)))
            .collect()
    }

    /// What checks everything before anything else runs.
    pub fn preflights(&self) -> Vec<Unit> {
        self.at(When::Member(Stage::Prepare, Steps::Before)).collect()
    }

    /// The unit, if the configuration needs it.
    pub fn needed(&self, unit: Unit) -> Option<Unit> {
        (unit.row().needed)(self.config).then_some(unit)
    }

    /// Whether the files are captured by us, and not by an own command.
    pub fn captures_files(&self) -> bool {
        self.needed(Unit::FsSnapshot).is_some()
    }

    /// What the clock starts.
    pub fn timers(&self) -> Vec<Unit> {
        [Unit::Timer, Unit::VerifyTimer].into_iter().filter_map(|unit| self.needed(unit)).collect()
    }

    /// Every unit, in the order in which a run meets them, and then what is no part of a run.
    pub fn units(&self) -> Vec<Unit> {
        let proxies =
            self.config.gitlab.proxies.iter().map(|proxy| Unit::Proxy(proxy.name.clone()));
        let stages = STAGES.into_iter().flat_map(|stage| self.stage(stage));
        let restore = Restore::PLAIN.iter().filter_map(|unit| self.needed(Unit::Restore(*unit)));
        self.at(When::Start)
            .chain(proxies)
            .chain(stages)
            .chain(self.at(When::End))
            .chain(restore)
            .chain(self.at(When::Alone))
            .collect()
    }

    /// A stage with its target, if there is such a stage.
    fn stage(&self, stage: Stage) -> Vec<Unit> {
        let members = self.members(stage);
        if members.is_empty() {
            return members;
        }
        [Unit::Stage(stage)]
            .into_iter()
            .chain(self.at(When::Around(stage)))
            .chain(members)
            .chain(self.at(When::Behind(stage)))
            .collect()
    }

    /// What happens in the window of a restore, in an order in which every unit comes after those
    /// it is ordered after.
    pub fn restore(&self) -> Vec<Restore> {
        Restore::in_window().filter(|unit| (unit.row().needed)(self.config)).collect()
    }

    /// What is needed then.
    fn at(&self, when: When) -> impl Iterator<Item = Unit> {
        Unit::PLAIN
            .iter()
            .filter(move |unit| unit.row().when == when)
            .filter_map(|unit| self.needed(unit.clone()))
    }
}

impl Restore {
    /// What may happen in the window, in its order.
    pub fn in_window() -> impl Iterator<Item = Self> {
        let all = Self::PLAIN.iter().copied();
        all.filter(|unit| matches!(unit.row().when, When::Member(..)))
    }
}
