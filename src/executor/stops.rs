//! Detects that an admin stops a unit which is down for the window. The job of that stop has
//! nothing to do, and cannot be told from that of `systemctl try-restart`, which packages and
//! logrotate call and which is not meant to stop a unit. But a real stop extends to units with
//! `PartOf=`. So for each unit that is down, there is a mark: a unit that does nothing, is active,
//! and is part of the first.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::systemd::{ActiveState, Mode, Paused, STOP_MARKS, ServiceManager, UnitView, stop_mark};

/// The watched units.
#[derive(Default)]
pub(super) struct Stops {
    /// By watched unit, whether its mark has been active.
    watched: BTreeMap<String, bool>,
    /// The units that did not stop in time for the window: systemd has ended them by force.
    pub killed: Vec<String>,
}

impl Stops {
    /// Marks those of `units` that have gone down, and returns those that were stopped afterwards.
    pub async fn check(
        &mut self,
        view: &mut UnitView<'_>,
        units: &[Paused],
    ) -> Result<Vec<String>> {
        let mut stopped = Vec::new();
        for Paused { unit, .. } in units {
            let mark = stop_mark(unit);
            match self.watched.get(unit) {
                None => {
                    let state = view.state(unit).await?;
                    if state.is_settled() {
                        // systemd's result of a stop that took longer than TimeoutStopSec=.
                        if state.active == ActiveState::Failed && state.result == "timeout" {
                            tracing::warn!(unit, "did not stop in time: systemd ended it by force");
                            self.killed.push(unit.clone());
                        }
                        view.manager().mark(&mark, unit).await?;
                        view.watch(std::slice::from_ref(&mark));
                        self.watched.insert(unit.clone(), false);
                    }
                }
                Some(up) => {
                    let state = view.state(&mark).await?;
                    if state.active.is_running() {
                        self.watched.insert(unit.clone(), true);
                    } else if *up && state.is_settled() {
                        stopped.push(unit.clone());
                    }
                }
            }
        }
        Ok(stopped)
    }
}

/// Stops all marks, also those of an executor that was killed.
pub(super) async fn stop_marks(manager: &dyn ServiceManager) -> Result<()> {
    for mark in manager.loaded(STOP_MARKS).await? {
        manager.stop(&mark, Mode::Replace).await?;
    }
    Ok(())
}
