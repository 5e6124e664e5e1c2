//! Why a window was for nothing, as precisely as the units can tell.

use anyhow::Result;

use super::watch::Watch;
use crate::config::Proxy;
use crate::run::Failed;
use crate::systemd::{ActiveState, UnitState, origin};
use crate::units::Unit;

impl Watch<'_> {
    /// Why the window could not be opened, or was closed too early.
    pub(super) async fn why(&mut self, window: &UnitState) -> anyhow::Error {
        match self.find(window).await {
            Ok(failed) => failed.into(),
            Err(error) => error.context("the capture failed"),
        }
    }

    async fn find(&mut self, window: &UnitState) -> Result<Failed> {
        if let Some(failed) = self.too_long().await? {
            return Ok(failed);
        }
        if window.reached_since(self.since)
            && let Some(unit) = self.entered(window).await?
        {
            return Err(self.started_within(window, &unit).await);
        }
        if let Some(unit) = self.meant_to_start().await? {
            return Err(self.started_within(window, &unit).await);
        }
        if let Some(failed) = self.failed_member().await? {
            return Ok(failed);
        }
        if let Some(failed) = self.failed_proxy().await? {
            return Ok(failed);
        }
        if let Some(writer) = self.writer_that_runs(window).await? {
            return Err(self.started_within(window, &writer).await);
        }
        let reason = format!("could not be opened or was closed too early: {}", window.result);
        Ok(Failed::new(window, reason))
    }

    async fn too_long(&mut self) -> Result<Option<Failed>> {
        let Some(deadline) = &self.window.deadline else { return Ok(None) };
        let deadline = self.view.state(&deadline.to_string()).await?;
        let reason = format!(
            "GitLab was down for {}, the longest that [gitlab] max-downtime allows",
            self.config.gitlab.max_downtime
        );
        Ok(deadline.reached_since(self.since).then(|| Failed::new(&deadline, reason)))
    }

    async fn failed_member(&mut self) -> Result<Option<Failed>> {
        for member in &self.window.members {
            let state = self.view.state(&member.to_string()).await?;
            // What is stopped with the window fails by that, and is not why.
            if state.inactive_exit >= self.since
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

    /// The first writer for which somebody had a job queued while the window was open, and not
    /// resume after it, and that runs or is about to.
    async fn meant_to_start(&mut self) -> Result<Option<String>> {
        self.told().await?;
        let resume = Unit::Resume.to_string();
        let before: Vec<String> = self
            .queued
            .iter()
            .take_while(|(_, unit)| *unit != resume)
            .map(|(_, unit)| unit.clone())
            .filter(|unit| self.config.gitlab.writers.iter().any(|writer| writer.as_str() == unit))
            .collect();
        for unit in before {
            let state = self.view.state(&unit).await?;
            if state.has_job() || !state.active.is_down() {
                return Ok(Some(unit));
            }
        }
        Ok(None)
    }

    /// The first writer that runs, where systemd has not told who was started before resume.
    async fn writer_that_runs(&mut self, window: &UnitState) -> Result<Option<String>> {
        let resume = Unit::Resume.to_string();
        let is_told = self.queued.iter().any(|(_, unit)| *unit == resume);
        if is_told || !window.reached_since(self.since) {
            return Ok(None);
        }
        for writer in &self.config.gitlab.writers {
            if self.view.state(writer.as_str()).await?.inactive_exit >= self.since {
                return Ok(Some(writer.to_string()));
            }
        }
        Ok(None)
    }

    /// The first unit without a conflict that was started while the window was open, or is so now.
    pub(super) async fn entered(&mut self, window: &UnitState) -> Result<Option<String>> {
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

    pub(super) async fn started_within(&mut self, window: &UnitState, unit: &str) -> anyhow::Error {
        // What was told meanwhile has the start itself.
        let _ = self.told().await;
        let origin = origin(self.machine.manager, unit, &self.queued).await;
        let reason = format!("{unit} was started{origin} in the window, which closed it");
        Failed::new(window, reason).into()
    }

    /// What was not frozen to the window's end, which the window itself has noticed.
    pub(super) async fn not_held(&mut self, window: &UnitState) -> anyhow::Error {
        for unit in &self.window.frozen {
            if let Ok(state) = self.view.state(unit).await
                && (state.inactive_exit.max(state.inactive_enter) >= window.inactive_exit
                    || state.active == ActiveState::Deactivating)
            {
                let reason = "was started, or ended while it was frozen, in the window: what was captured is not of one moment";
                return Failed::new(&state, reason).into();
            }
        }
        let reason = "GitLab was not frozen to its end: what was captured is not of one moment";
        Failed::new(window, reason).into()
    }
}
