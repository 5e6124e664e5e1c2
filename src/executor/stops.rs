//! Who stops a unit that is down already is not told of as such: the job has nothing to do, and
//! ends as that of `systemctl try-restart`, which packages and logrotate call, and which is not
//! meant to stop anything. But systemd stops along what is part of the unit. So beside each unit of
//! GitLab's that is down in a window, one of ours is up that is part of it and does nothing.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::systemd::{Mode, Paused, STOP_MARKS, ServiceManager, UnitView, stop_mark};

/// The units that are watched.
#[derive(Default)]
pub(super) struct Stops {
    /// Whether ours has been seen up, by the unit that is watched.
    watched: BTreeMap<String, bool>,
}

impl Stops {
    /// Watches those of `units` that are down by now, and tells which were stopped since they are.
    pub async fn look(&mut self, view: &mut UnitView<'_>, units: &[Paused]) -> Result<Vec<String>> {
        let mut stopped = Vec::new();
        for Paused { unit, .. } in units {
            let mark = stop_mark(unit);
            match self.watched.get(unit) {
                None => {
                    if view.state(unit).await?.is_settled() {
                        view.manager().mark(&mark, unit).await?;
                        view.name(std::slice::from_ref(&mark));
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

/// Nothing is watched any more, also not what an executor did that was killed.
pub(super) async fn end(manager: &dyn ServiceManager) -> Result<()> {
    for mark in manager.loaded(STOP_MARKS).await? {
        manager.stop(&mark, Mode::Replace).await?;
    }
    Ok(())
}
