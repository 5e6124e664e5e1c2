//! The stages of a backup.

use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::window::Window;
use super::{capture, enter, hold, restore, resume, stage};
use crate::config::{Config, Quiesce, Stage};
use crate::gitlab::strangers;
use crate::machine::{Base, Machine};
use crate::monitoring::OnError;
use crate::open;
use crate::paths;
use crate::run::{Failed, credentials, silence};
use crate::runs::budget::budget;
use crate::runs::held::Search;
use crate::runs::record::read_json;
use crate::runs::restore::{RestoreJournal, left};
use crate::runs::{How, Kind, Newest, Outcome, Quiesced, Record, parts, paused};
use crate::stores::files::{Pass, read_left_out};
use crate::units::{Plan, Unit};

/// A backup in progress.
struct Backup<'a> {
    config: &'a Config,
    base: Base<'a>,
    machine: Machine<'a>,
    plan: Plan<'a>,
    record: &'a mut Record,
}

/// Executes all stages.
pub(super) async fn stages(
    config: &Config,
    base: Base<'_>,
    machine: Machine<'_>,
    record: &mut Record,
) -> Result<()> {
    let mut backup = Backup { config, base, machine, plan: Plan::new(config), record };
    backup.finish_earlier_runs().await?;
    backup.prepare().await?;
    backup.capture().await?;
    backup.store().await?;
    backup.finish().await
}

impl Backup<'_> {
    fn enter(&mut self, stage: &str) -> Result<()> {
        enter(self.base, self.record, Kind::Backup, stage)
    }

    /// Completes what interrupted runs and restores have left unfinished.
    async fn finish_earlier_runs(&mut self) -> Result<()> {
        let Machine { manager, root, .. } = self.machine;
        if let Some(why) = RestoreJournal::half_way(root) {
            bail!("{why}");
        }
        if paused::load(root)?.is_some() {
            tracing::warn!("an earlier run left GitLab paused: resuming it first");
            resume::wait(self.machine, self.config).await?;
        }
        // A restore may be waiting for its last step, which removes the replaced data.
        if let Err(error) = restore::finish_earlier(self.machine).await {
            tracing::warn!("{error:#}");
            let words = format!("what a restore has replaced is not removed: {error:#}");
            self.record.warnings.push(words);
        }
        self.record.warnings.extend(left(root)?);
        self.record.warnings.extend(strangers::running(self.config, manager).await?);
        Ok(())
    }

    /// The stage before the window: checks, presync and silences.
    async fn prepare(&mut self) -> Result<()> {
        self.enter("prepare")?;
        open::check_password_file(self.config)?;
        credentials::ensure_files_exist(self.config)?;
        if let Some(reason) = silence::reason_to_abort(self.config, self.base.root)? {
            return Err(
                Failed { unit: Unit::Silence.to_string(), reason, has_exited: false }.into()
            );
        }
        let members = self.plan.members(Stage::Prepare);
        match stage::run_stage(self.machine, &Unit::Stage(Stage::Prepare), &members, &[]).await {
            // This step also fails if one of its secrets is missing. Unless the configuration says
            // so, that does not prevent a backup.
            Err(error)
                if self.config.monitoring.on_error == OnError::Warn
                    && is_failure_of(&error, &Unit::Silenced) =>
            {
                tracing::warn!("{error:#}: the backup continues");
                self.record.warnings.push(format!("{error:#}"));
            }
            prepared => prepared?,
        }
        self.record.warnings.extend(silence::missing(self.config, self.base.root)?);
        self.announce_downtime()
    }

    /// The window, until GitLab is up again.
    async fn capture(&mut self) -> Result<()> {
        let manager = self.machine.manager;
        self.enter("capture")?;
        stage::adopt_proxies(self.machine, &self.plan).await?;
        let held = hold::capture(self.config, self.machine, &self.plan, self.record).await?;
        let captured = match held {
            Some(captured) => captured,
            None => {
                let window = Window::backup(self.config, &self.plan);
                capture::capture(self.config, self.machine, &window).await?
            }
        };
        let how = match self.config.gitlab.quiesce {
            Quiesce::Freeze => How::Frozen,
            Quiesce::Stop | Quiesce::Hold => How::Stopped,
        };
        self.record.quiesced.get_or_insert(Quiesced {
            how,
            search: Search::default(),
            background: None,
        });
        self.record.warnings.extend(captured.warnings());
        self.enter("resume")?;
        self.record.downtime =
            resume::wait_and_measure(self.config, self.machine, &captured, self.record).await?;
        if let Some(quiesced) = self.record.quiesced.as_mut().filter(|now| now.how == How::Held) {
            let waited = self.machine.clock.monotonic().saturating_sub(captured.since);
            quiesced.background = Some(Duration::from_micros(waited).as_secs_f64());
        }
        if !self.config.redis.is_empty() {
            stage::ensure_succeeded(manager, &Unit::Redis, captured.since).await?;
        }
        if self.plan.captures_files() {
            stage::ensure_succeeded(manager, &Unit::FilesLive, captured.since).await?;
            stage::wait_until_up(manager, &Unit::FsSnapshot).await?;
        }
        Ok(())
    }

    /// Stores everything in the repository, while GitLab is up.
    async fn store(&mut self) -> Result<()> {
        self.enter("store")?;
        let captured = self.plan.members(Stage::Window);
        // A held snapshot prevents vacuum from cleaning up, or a file system from freeing space. It
        // ends with the step that needs it, not with the stage.
        let held: Vec<_> =
            stage::HELD.into_iter().filter(|(_, bracket)| captured.contains(bracket)).collect();
        let members = self.plan.members(Stage::Store);
        stage::run_stage(self.machine, &Unit::Stage(Stage::Store), &members, &held).await?;
        self.record.outcome = Outcome::Complete;
        self.record.parts = parts::read(self.machine.root)?;
        self.record.warnings.extend(read_left_out(self.machine.root)?);
        let location = Some(self.config.repository.location.clone());
        let newest = Newest { run: self.record.id.clone(), location };
        if let Err(error) = newest.save(self.machine.root) {
            let words = format!("cannot record this run as the newest: {error:#}");
            self.record.warnings.push(words);
        }
        Ok(())
    }

    /// The steps after a complete run.
    async fn finish(&mut self) -> Result<()> {
        let members = self.plan.members(Stage::Finish);
        if !members.is_empty() {
            self.enter("finish")?;
            stage::run_stage(self.machine, &Unit::Stage(Stage::Finish), &members, &[]).await?;
        }
        if self.record.downtime.is_none() {
            resume::wait(self.machine, self.config)
                .await
                .context("the backup is complete, but GitLab is not back")?;
        }
        Ok(())
    }

    /// Announces how long GitLab will probably be down.
    fn announce_downtime(&mut self) -> Result<()> {
        let record = &mut *self.record;
        let records: Vec<Record> = Record::all(self.base.root, self.base.clock.now())?
            .into_iter()
            .filter(|other| other.id != record.id)
            .collect();
        let last = records.iter().find(|other| other.outcome == Outcome::Complete);
        let since = last.map(|last| record.started.duration_since(last.started).as_secs_f64());
        let pass = match self.config.files.presync {
            true => read_json::<Pass>(&self.machine.root.at(paths::PASS))?.unwrap_or_default(),
            false => Pass::default(),
        };
        let Some(budget) = budget(&records, pass.estimate_window(since)) else {
            tracing::info!("the downtime of the first run cannot be estimated");
            return Ok(());
        };
        record.expected = Some(budget.expected);
        tracing::info!(runs = budget.runs, entries = pass.entries, "{budget}");
        if budget.expected.total() > self.config.gitlab.max_downtime.duration().as_secs_f64() {
            let warning = format!(
                "{budget}, which is longer than [gitlab] max-downtime allows: the run may be \
                 ended by it"
            );
            tracing::warn!("{warning}");
            record.warnings.push(warning);
        }
        Ok(())
    }
}

/// Whether the error is a failure of `unit`.
fn is_failure_of(error: &anyhow::Error, unit: &Unit) -> bool {
    error.downcast_ref::<Failed>().is_some_and(|failed| failed.unit == unit.to_string())
}
