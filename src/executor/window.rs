//! The units of a window: its steps, and the units that are down in it.

use crate::config::{Config, Quiesce, Stage};
use crate::systemd::Paused;
use crate::units::{Plan, Restore, Unit};
use crate::values::UnitName;

/// The window of a backup or of a restore.
pub(super) struct Window {
    /// The target that is reached when all members are done.
    pub target: Unit,
    /// The bracket in which GitLab is down.
    pub window: Unit,
    /// The bracket whose end starts GitLab again.
    pub pause: Unit,
    /// The gates, which are started before the window, and whose stops make it stop GitLab in
    /// phases.
    pub gates: Vec<Unit>,
    /// The unit that ends the window when it has lasted too long.
    pub deadline: Option<Unit>,
    /// The steps.
    pub members: Vec<Unit>,
    /// The units to stop.
    pub stopped: Vec<String>,
    /// The units of `stopped` that are stopped without their dependents. No `Conflicts=` protects
    /// the window against their start, so the executor watches them.
    pub alone: Vec<String>,
    /// The units that members stop and start themselves. Their dependents go down with them and are
    /// started with the other paused units.
    pub driven: Vec<String>,
    /// Units that are down already, to be started with the others.
    pub paused: Vec<Paused>,
    /// The units to freeze instead.
    pub frozen: Vec<String>,
    /// Resume waits for GitLab's answer even if GitLab did not answer before.
    pub must_answer: bool,
}

impl Window {
    /// The window of a backup.
    pub fn backup(config: &Config, plan: &Plan<'_>) -> Self {
        let writers = UnitName::texts(&config.gitlab.writers);
        let (stopped, alone, frozen) = match config.gitlab.quiesce {
            Quiesce::Stop | Quiesce::Hold => {
                (writers, UnitName::texts(&config.gitlab.stopped_alone), Vec::new())
            }
            Quiesce::Freeze => (Vec::new(), Vec::new(), writers),
        };
        Self {
            target: Unit::Stage(Stage::Window),
            window: Unit::Window,
            pause: Unit::Pause,
            gates: plan.gates(false),
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

    /// The window of a backup that holds GitLab still.
    pub fn hold(config: &Config, plan: &Plan<'_>) -> Self {
        Self {
            target: Unit::HoldTarget,
            window: Unit::Hold,
            gates: Vec::new(),
            // The hold limits itself, and systemd limits it.
            deadline: None,
            stopped: config.gitlab.stopped_by_hold().map(ToString::to_string).collect(),
            alone: Vec::new(),
            frozen: config.gitlab.held().map(ToString::to_string).collect(),
            ..Self::backup(config, plan)
        }
    }

    /// The window of a restore, whose members stop and start `driven`. `paused` are the units that
    /// an unfinished restore keeps down. `loads`: everything is loaded in the window, too.
    pub fn restore(
        config: &Config,
        plan: &Plan<'_>,
        driven: Vec<String>,
        paused: Vec<Paused>,
        loads: bool,
    ) -> Self {
        let (target, members) = match loads {
            true => (Restore::Apply, plan.restore()),
            false => (Restore::Replace, plan.replaces()),
        };
        Self {
            target: target.into(),
            window: Restore::Window.into(),
            pause: Restore::Pause.into(),
            gates: plan.gates(true),
            deadline: None,
            members: members.into_iter().map(Unit::Restore).collect(),
            stopped: UnitName::texts(&config.gitlab.writers),
            alone: UnitName::texts(&config.gitlab.stopped_alone),
            driven,
            paused,
            frozen: Vec::new(),
            // The replaced data is removed only after GitLab has answered.
            must_answer: true,
        }
    }
}
