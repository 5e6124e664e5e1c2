//! Notices what others have systemd do with GitLab's units while a window is open.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use super::stops::Stops;
use super::window::Window;
use crate::config::Config;
use crate::machine::Machine;
use crate::runs::paused;
use crate::systemd::{JobEvent, Paused, UnitView, stopped_along};

/// A window that is watched.
pub(super) struct Watch<'a> {
    pub config: &'a Config,
    pub machine: Machine<'a>,
    pub window: &'a Window,
    pub view: UnitView<'a>,
    /// When the first stop was asked for, microseconds of CLOCK_MONOTONIC.
    pub since: u64,
    /// It has lasted too long, and was told to end.
    pub is_over: bool,
    /// The window has been open.
    pub is_open: bool,
    /// The jobs that were queued since, by number and unit.
    pub queued: Vec<(u32, String)>,
    /// How many jobs each unit was given since, by its name.
    jobs: BTreeMap<String, u32>,
    /// The number of the target's own job: what has a lower one was queued before the window, what
    /// was queued with it follows.
    anchor: u32,
    /// All that the window stops.
    closure: Vec<String>,
    /// What the window's own members stop, and what goes down along with it: not everybody who
    /// stops that is an admin.
    driven: Vec<String>,
    running: Vec<Paused>,
    stops: Stops,
}

impl<'a> Watch<'a> {
    #[expect(clippy::too_many_arguments, reason = "each is a fact of one window")]
    pub fn new(
        config: &'a Config,
        machine: Machine<'a>,
        window: &'a Window,
        view: UnitView<'a>,
        since: u64,
        anchor: u32,
        closure: Vec<String>,
        driven: Vec<String>,
        running: Vec<Paused>,
    ) -> Self {
        Self {
            config,
            machine,
            window,
            view,
            since,
            is_over: false,
            is_open: false,
            queued: Vec::new(),
            jobs: BTreeMap::new(),
            anchor,
            closure,
            driven,
            running,
            stops: Stops::default(),
        }
    }

    /// Takes in what was told since the last time.
    pub async fn told(&mut self) -> Result<()> {
        while let Some(event) = self.view.job() {
            let (id, unit, result) = match event {
                JobEvent::New { id, unit } => {
                    if id > self.anchor {
                        *self.jobs.entry(unit.clone()).or_default() += 1;
                        self.queued.push((id, unit));
                    }
                    continue;
                }
                JobEvent::Removed { id, unit, result } => (id, unit, result),
            };
            // It came between the last look and the window, which cancelled it: what was to run
            // runs afterwards.
            let unknown = self.closure.contains(&unit)
                && !self.running.iter().any(|paused| paused.unit == unit);
            if id < self.anchor && result == "canceled" && unknown {
                tracing::info!(
                    unit,
                    "was being started when the window began: it is started afterwards"
                );
                self.running.push(Paused { unit, left_down: Vec::new() });
                paused::save(self.machine.root, &self.running)?;
            }
        }
        self.admin_stops().await
    }

    /// Whether a member of the window was told to stop: its start is the first job that it has.
    pub fn was_stopped(&self, member: &str) -> bool {
        self.jobs.get(member).is_some_and(|jobs| *jobs > 1)
    }

    /// What an admin stops while it is down anyway stays down.
    async fn admin_stops(&mut self) -> Result<()> {
        let watched: Vec<Paused> = self
            .running
            .iter()
            .filter(|paused| !self.driven.contains(&paused.unit))
            .cloned()
            .collect();
        for unit in self.stops.look(&mut self.view, &watched).await? {
            // Its own start has it back: whoever restarts it does not stop it.
            if !self.view.state(&unit).await?.is_settled() {
                continue;
            }
            tracing::info!(unit, "stopped by an admin in the window: it stays down");
            for stopped in stopped_along(self.machine.manager, &unit).await? {
                paused::leave_down(&mut self.running, &stopped);
            }
            paused::save(self.machine.root, &self.running)
                .context("cannot take a stopped unit off the record")?;
        }
        Ok(())
    }
}
