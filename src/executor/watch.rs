//! Follows the jobs of GitLab's units while a window is open, to detect what an admin or another
//! program does with them.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use super::stops::Stops;
use super::window::Window;
use crate::config::Config;
use crate::machine::Machine;
use crate::runs::paused;
use crate::systemd::{JobEvent, Paused, UnitView, stopped_along};

/// The watch over one window.
pub(super) struct Watch<'a> {
    pub config: &'a Config,
    pub machine: Machine<'a>,
    pub window: &'a Window,
    pub view: UnitView<'a>,
    /// When the first stop was queued, in microseconds of CLOCK_MONOTONIC.
    pub since: u64,
    /// The window has exceeded its deadline, and the unit that ends it was started.
    pub is_over: bool,
    /// Whether the window has been open.
    pub is_open: bool,
    /// The jobs queued since the window began to open, or since it was open: id and unit.
    pub queued: Vec<(u32, String)>,
    /// The number of jobs of each unit since the window began to open.
    jobs: BTreeMap<String, u32>,
    /// The id of the job that starts the target. Lower ids were queued before the window, higher
    /// ones with it or later.
    target_job: u32,
    /// All units that the window stops.
    closure: Vec<String>,
    /// The units that members of the window stop, and those that systemd stops with them: a stop of
    /// these is not an admin's.
    driven: Vec<String>,
    /// The units that are recorded as paused.
    running: Vec<Paused>,
    pub stops: Stops,
}

impl<'a> Watch<'a> {
    #[expect(clippy::too_many_arguments, reason = "each is a fact of one window")]
    pub fn new(
        config: &'a Config,
        machine: Machine<'a>,
        window: &'a Window,
        view: UnitView<'a>,
        since: u64,
        target_job: u32,
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
            target_job,
            closure,
            driven,
            running,
            stops: Stops::default(),
        }
    }

    /// Handles the signals of jobs that have arrived.
    pub async fn handle_jobs(&mut self) -> Result<()> {
        while let Some(event) = self.view.job() {
            let (id, unit, result) = match event {
                JobEvent::New { id, unit } => {
                    if id > self.target_job {
                        *self.jobs.entry(unit.clone()).or_default() += 1;
                        self.queued.push((id, unit));
                    }
                    continue;
                }
                JobEvent::Removed { id, unit, result } => (id, unit, result),
            };
            // A start that was queued before the window and that the window has cancelled.
            let is_unrecorded = self.closure.contains(&unit)
                && !self.running.iter().any(|paused| paused.unit == unit);
            if id < self.target_job && result == "canceled" && is_unrecorded {
                tracing::info!(
                    unit,
                    "was being started when the window began: it is started afterwards"
                );
                self.running.push(Paused { unit, left_down: Vec::new() });
                paused::save(self.machine.root, &self.running)?;
            }
        }
        self.handle_admin_stops().await
    }

    /// Whether the only job of a unit is its stop by the window.
    pub fn was_only_stopped(&self, unit: &str) -> bool {
        !self.is_open
            && self.jobs.get(unit) == Some(&1)
            && self.running.iter().any(|paused| paused.unit == unit)
    }

    /// Whether a member of the window was stopped: its first job is its start.
    pub fn was_stopped(&self, member: &str) -> bool {
        self.jobs.get(member).is_some_and(|jobs| *jobs > 1)
    }

    /// Removes from the paused units those that an admin has stopped: they stay down.
    async fn handle_admin_stops(&mut self) -> Result<()> {
        let watched: Vec<Paused> = self
            .running
            .iter()
            .filter(|paused| !self.driven.contains(&paused.unit))
            .cloned()
            .collect();
        for unit in self.stops.check(&mut self.view, &watched).await? {
            // Starting: it was a restart.
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
