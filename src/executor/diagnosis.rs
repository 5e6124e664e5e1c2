//! Finds out why a window failed, from the states of the units and the jobs of systemd.

use anyhow::Result;

use super::watch::Watch;
use crate::config::Proxy;
use crate::run::Failed;
use crate::systemd::{ActiveState, UnitState, origin};
use crate::units::Unit;

impl Watch<'_> {
    /// Why the window could not be opened, or was closed too early.
    pub(super) async fn diagnose(&mut self, window: &UnitState) -> anyhow::Error {
        match self.find_failure(window).await {
            Ok(failed) => failed.into(),
            Err(error) => error.context("the capture failed"),
        }
    }

    /// Tries the possible reasons, the most precise first.
    async fn find_failure(&mut self, window: &UnitState) -> Result<Failed> {
        if let Some(failed) = self.exceeded_deadline().await? {
            return Ok(failed);
        }
        if window.reached_since(self.since)
            && let Some(unit) = self.started_alone(window).await?
        {
            return Err(self.started_within(window, &unit).await);
        }
        if let Some(unit) = self.queued_writer().await? {
            return Err(self.started_within(window, &unit).await);
        }
        if let Some(failed) = self.failed_member().await? {
            return Ok(failed);
        }
        if let Some(failed) = self.failed_proxy().await? {
            return Ok(failed);
        }
        if let Some(writer) = self.started_writer(window).await? {
            return Err(self.started_within(window, &writer).await);
        }
        let reason = format!("could not be opened or was closed too early: {}", window.result);
        Ok(Failed::new(window, reason))
    }

    /// The deadline, if it ended the window.
    async fn exceeded_deadline(&mut self) -> Result<Option<Failed>> {
        let Some(deadline) = &self.window.deadline else { return Ok(None) };
        let deadline = self.view.state(&deadline.to_string()).await?;
        let reason = format!(
            "GitLab was down for {}, the longest that [gitlab] max-downtime allows",
            self.config.gitlab.max_downtime
        );
        Ok(deadline.reached_since(self.since).then(|| Failed::new(&deadline, reason)))
    }

    /// The first member that ran in this window and failed by itself.
    async fn failed_member(&mut self) -> Result<Option<Failed>> {
        for member in &self.window.members {
            let state = self.view.state(&member.to_string()).await?;
            // A member that was stopped together with the window is not the reason.
            if state.started_since(self.since)
                && !self.was_stopped(&state.name)
                && (state.active == ActiveState::Failed || state.result != "success")
            {
                let reason = format!("failed in the window: {}", state.result);
                return Ok(Some(Failed::new(&state, reason)));
            }
        }
        Ok(None)
    }

    async fn failed_proxy(&mut self) -> Result<Option<Failed>> {
        for unit in self.config.gitlab.writing_proxies().map(Proxy::unit) {
            let state = self.view.state(unit.as_str()).await?;
            if state.active == ActiveState::Failed && state.inactive_enter >= self.since {
                return Ok(Some(Failed::new(&state, "the service could not be stopped")));
            }
        }
        Ok(None)
    }

    /// The first writer that runs or is about to, by a job that was queued before resume started.
    async fn queued_writer(&mut self) -> Result<Option<String>> {
        self.handle_jobs().await?;
        let resume = Unit::Resume.to_string();
        let before: Vec<String> = self
            .queued
            .iter()
            .take_while(|(_, unit)| *unit != resume)
            .map(|(_, unit)| unit.clone())
            .filter(|unit| self.config.gitlab.writers.iter().any(|writer| writer.as_str() == unit))
            .filter(|unit| !self.was_only_stopped(unit))
            .collect();
        for unit in before {
            let state = self.view.state(&unit).await?;
            if state.has_job() || !state.active.is_down() {
                return Ok(Some(unit));
            }
        }
        Ok(None)
    }

    /// The first writer that runs. Used if the signal of the job that started resume was lost, so
    /// that the order of the jobs is unknown.
    async fn started_writer(&mut self, window: &UnitState) -> Result<Option<String>> {
        let resume = Unit::Resume.to_string();
        let is_known = self.queued.iter().any(|(_, unit)| *unit == resume);
        if is_known || !window.reached_since(self.since) {
            return Ok(None);
        }
        for writer in &self.config.gitlab.writers {
            if self.view.state(writer.as_str()).await?.started_since(self.since) {
                return Ok(Some(writer.to_string()));
            }
        }
        Ok(None)
    }

    /// The first unit without `Conflicts=` that was started while the window was, or is, open.
    pub(super) async fn started_alone(&mut self, window: &UnitState) -> Result<Option<String>> {
        let is_open = window.inactive_enter < window.active_enter;
        let end = if is_open { u64::MAX } else { window.inactive_enter };
        for unit in &self.window.alone {
            let started = self.view.state(unit).await?.inactive_exit;
            if (window.active_enter..end).contains(&started) {
                return Ok(Some(unit.clone()));
            }
        }
        Ok(None)
    }

    /// The failure of a window in which `unit` was started, with the origin of the start.
    pub(super) async fn started_within(&mut self, window: &UnitState, unit: &str) -> anyhow::Error {
        // The job of the start may be among the signals not handled yet.
        let _ = self.handle_jobs().await;
        let origin = origin(self.machine.manager, self.machine.root, unit, &self.queued).await;
        let reason = format!("{unit} was started{origin} in the window, which closed it");
        Failed::new(window, reason).into()
    }

    /// The failure of a window whose end has found a unit that was not frozen any more.
    pub(super) async fn thawed_early(&mut self, window: &UnitState) -> anyhow::Error {
        for unit in &self.window.frozen {
            if let Ok(state) = self.view.state(unit).await
                && (state.inactive_exit.max(state.inactive_enter) >= window.inactive_exit
                    || state.active == ActiveState::Deactivating)
            {
                let reason = "was started, or ended while it was frozen, in the window: what was \
                              captured is not of one moment";
                return Failed::new(&state, reason).into();
            }
        }
        let reason = "GitLab was not frozen to its end: what was captured is not of one moment";
        Failed::new(window, reason).into()
    }
}
