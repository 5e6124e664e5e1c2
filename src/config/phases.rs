//! The phases in which the writers are stopped.
//!
//! A push is the work of several services: Gitaly moves the ref, and its hooks ask Puma, through
//! Workhorse, before and after. If all are told to stop at once, the ref of a push in progress
//! moves and nobody hears of it. So Gitaly ends first, while the others still answer its hooks.

use super::Gitlab;
use crate::values::UnitName;

/// A phase of the stop. Each begins when the one before it has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The units through which users reach GitLab, if they may be stopped.
    Door,
    /// Gitaly ends what is in progress.
    Gitaly,
    /// Everything else that answers users: Workhorse, Puma, Pages, the registry.
    Web,
    /// What works without users: Sidekiq, mailroom.
    Background,
}

/// The writers that are not stopped in [`Phase::Web`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Phases {
    /// `door`
    pub door: Vec<UnitName>,
    /// `gitaly`
    pub gitaly: Vec<UnitName>,
    /// `background`
    pub background: Vec<UnitName>,
    /// Whether `gitaly` is configured, perhaps as none.
    pub gitaly_is_given: bool,
}

impl Phases {
    /// The phases of `writers`, by the names of GitLab's services.
    pub(super) fn by_name(writers: &[UnitName]) -> Self {
        let named = |services: &[&str]| -> Vec<UnitName> {
            writers.iter().filter(|unit| has_word(unit, services)).cloned().collect()
        };
        Self {
            door: Vec::new(),
            gitaly: named(&["gitaly"]),
            background: named(&["sidekiq", "mailroom", "mail_room"]),
            gitaly_is_given: false,
        }
    }
}

/// Whether one of the words of a unit's name is one of `words`.
fn has_word(unit: &UnitName, words: &[&str]) -> bool {
    unit.as_str().split(['-', '@', ':', '.']).any(|word| words.contains(&word))
}

impl Gitlab {
    /// The phase in which a writer is stopped. None if it has no processes: a target, timer or
    /// socket has no work in progress, and is stopped at once.
    pub fn phase(&self, unit: &UnitName) -> Option<Phase> {
        if !unit.has_processes() {
            return None;
        }
        let Phases { door, gitaly, background, .. } = &self.phases;
        [(door, Phase::Door), (gitaly, Phase::Gitaly), (background, Phase::Background)]
            .into_iter()
            .find(|(units, _)| units.contains(unit))
            .map_or(Some(Phase::Web), |(_, phase)| Some(phase))
    }

    /// The writers that are stopped in a phase.
    pub fn in_phase(&self, phase: Phase) -> impl Iterator<Item = &UnitName> {
        self.writers.iter().filter(move |unit| self.phase(unit) == Some(phase))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gitlabs_services_are_known_by_name() {
        let units: Vec<UnitName> = [
            "gitlab-gitaly.service",
            "gitaly.service",
            "gitlab-backup-proxy-gitaly.service",
            "gitlab-sidekiq@2.service",
            "gitlab-mailroom.service",
            "gitlab-puma.service",
            "notgitaly.service",
        ]
        .map(|name| UnitName::new(name).unwrap())
        .into();
        let phases = Phases::by_name(&units);
        assert_eq!(phases.gitaly, units[..3]);
        assert_eq!(phases.background, units[3..5]);
    }
}
