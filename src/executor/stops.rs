//! Who stops a unit that is down already is not told of as such: the job has nothing to do, and
//! ends as that of `systemctl try-restart`, which packages and logrotate call, and which is not
//! meant to stop anything. But systemd stops along what is part of the unit. So beside each unit of
//! GitLab's that is down in a window, one of ours is up that is part of it and does nothing.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::systemd::{Manager, Paused, STOP_MARKS, stop_mark};

/// The units that are watched.
#[derive(Default)]
pub(super) struct Stops {
    /// Whether ours has been seen up, by the unit that is watched.
    watched: BTreeMap<String, bool>,
}

impl Stops {
    /// Watches those of `units` that are down by now, and tells which were stopped since they are.
    pub async fn look(&mut self, manager: &Manager, units: &[Paused]) -> Result<Vec<String>> {
        let mut stopped = Vec::new();
        for Paused { unit, .. } in units {
            let mark = stop_mark(unit);
            match self.watched.get(unit) {
                None => {
                    if manager.state(unit).await?.is_settled() {
                        manager.mark(&mark, unit).await?;
                        self.watched.insert(unit.clone(), false);
                    }
                }
                Some(up) => {
                    let state = manager.state(&mark).await?;
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
pub(super) async fn end(manager: &Manager) -> Result<()> {
    for mark in manager.loaded(STOP_MARKS).await? {
        manager.stop(&mark).await?;
    }
    Ok(())
}
