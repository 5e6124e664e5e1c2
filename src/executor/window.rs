//! A window: what happens in it, and what is down meanwhile.

use crate::config::{Config, Quiesce, Stage};
use crate::systemd::Paused;
use crate::units::{Plan, Restore, Unit};
use crate::values::UnitName;

/// One window, of a backup or of a restore.
pub(super) struct Window {
    /// Reached when everything in it is done.
    pub target: Unit,
    /// The bracket in which GitLab is down.
    pub window: Unit,
    /// The bracket that brings it back.
    pub pause: Unit,
    /// What ends it when it lasts too long.
    pub deadline: Option<Unit>,
    /// What happens in it.
    pub members: Vec<Unit>,
    /// What is stopped.
    pub stopped: Vec<String>,
    /// Those of them that are stopped without what hangs on them. No `Conflicts=` guards the window
    /// against their start: it is watched here.
    pub alone: Vec<String>,
    /// What its members stop and start themselves; what hangs on these goes down and comes back
    /// with the rest.
    pub driven: Vec<String>,
    /// What is down already and is to be started with the rest.
    pub paused: Vec<Paused>,
    /// What is frozen and not stopped.
    pub frozen: Vec<String>,
    /// GitLab is to answer afterwards, also where it did not before.
    pub must_answer: bool,
}

impl Window {
    /// The one of a backup.
    pub fn backup(config: &Config, plan: &Plan<'_>) -> Self {
        let writers = UnitName::texts(&config.gitlab.writers);
        // What is frozen need not be started again.
        let (stopped, alone, frozen) = match config.gitlab.quiesce {
            Quiesce::Stop => (writers, UnitName::texts(&config.gitlab.stopped_alone), Vec::new()),
            Quiesce::Freeze => (Vec::new(), Vec::new(), writers),
        };
        Self {
            target: Unit::Stage(Stage::Window),
            window: Unit::Window,
            pause: Unit::Pause,
            deadline: Some(Unit::DeadlineTarget),
            members: plan.members(Stage::Window),
            stopped,
            alone,
            driven: Vec::new(),
            paused: Vec::new(),
            frozen,
            must_answer: false,
        }
    }

    /// The one of a restore, whose members stop and start `driven`. `paused` is what an unfinished
    /// one has kept down.
    pub fn restore(
        config: &Config,
        plan: &Plan<'_>,
        driven: Vec<String>,
        paused: Vec<Paused>,
    ) -> Self {
        Self {
            target: Restore::Apply.into(),
            window: Restore::Window.into(),
            pause: Restore::Pause.into(),
            deadline: None,
            members: plan.restore().into_iter().map(Unit::Restore).collect(),
            stopped: UnitName::texts(&config.gitlab.writers),
            alone: UnitName::texts(&config.gitlab.stopped_alone),
            driven,
            paused,
            frozen: Vec::new(),
            // What was restored is only kept if it does.
            must_answer: true,
        }
    }
}
