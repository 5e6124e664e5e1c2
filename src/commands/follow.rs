//! Follows a run or a restore while systemd runs it. Interrupting the command does not interrupt
//! the run.

use std::io::IsTerminal;
use std::time::Duration;

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::Instant;

use crate::exit::{Exit, UNIT_FAILED};
use crate::host::text;
use crate::note;
use crate::paths::RootDirectory;
use crate::run::unstarted;
use crate::runs::{Kind, Outcome, Record};
use crate::systemd::{HostJournal, Manager, UnitView};
use crate::units::{Restore, Unit};

/// How often the time on the progress line is updated.
const TICK: Duration = Duration::from_millis(200);

/// Follows the executor to its end and returns the record that it wrote, once the brackets around
/// the run are down: the silences have ended, or their grace period has begun, and the staging
/// directory is removed. `before` is the last record from before the start: while it is still the
/// last one, the new run has no record yet.
pub(super) async fn follow(
    manager: &Manager,
    kind: Kind,
    before: Option<&Record>,
) -> Result<Record> {
    let (unit, staging) = match kind {
        Kind::Backup => (Unit::Run, Unit::Staging),
        Kind::Restore => (Restore::Run.into(), Restore::Staging.into()),
    };
    let mut progress = FollowedRun::new(kind);
    let mut view = UnitView::new(manager).await?;
    loop {
        // Read the state before the record: an executor that has ended has written its record.
        let executor = view.state(&unit.to_string()).await?;
        let record = Record::last(&RootDirectory::host(), kind)?.filter(|record| {
            before.is_none_or(|before| (&before.id, before.started) != (&record.id, record.started))
        });
        match record {
            Some(record) if record.finished.is_some() && executor.is_settled() => {
                if let Err(error) =
                    wait_until_down(&mut view, &unit, &[staging, Unit::Silence]).await
                {
                    tracing::warn!("{error:#}");
                }
                progress.end();
                return Ok(record);
            }
            Some(record) => progress.show(&mut view, &record).await?,
            None if executor.is_settled() => {
                return Err(not_started(manager, kind, &executor.name).await?.into());
            }
            None => {}
        }
        view.wait_for_change().await?;
    }
}

/// Waits until `brackets` are down, or `executor` is started again: it needs them for its own run.
async fn wait_until_down(
    view: &mut UnitView<'_>,
    executor: &Unit,
    brackets: &[Unit],
) -> Result<()> {
    for bracket in brackets.iter().map(ToString::to_string) {
        while !view.state(&bracket).await?.is_settled()
            && view.state(&executor.to_string()).await?.is_settled()
        {
            view.wait_for_change().await?;
        }
    }
    Ok(())
}

/// The error for an executor that ended without a record.
async fn not_started(manager: &Manager, kind: Kind, executor: &str) -> Result<Exit> {
    let last = Record::last(&RootDirectory::host(), kind)?;
    let why = match unstarted(manager, &HostJournal, kind, last.as_ref()).await? {
        Some(why) => format!("{}: {} (journalctl -u {})", why.unit, why.reason, why.unit),
        None => "see 'journalctl -b -u \"gitlab-backup*\"'".to_owned(),
    };
    Ok(Exit { code: UNIT_FAILED, message: format!("{executor} did not start: {why}") })
}

/// Fails if `record` says that `what` failed. Prints the last log lines of the failed unit.
pub(super) fn ensure_succeeded(what: &str, record: &Record) -> Result<()> {
    if record.outcome == Outcome::Complete && record.failure.is_none() {
        return Ok(());
    }
    let reason = record.failure.as_ref().map_or("no reason on record", |failure| &failure.reason);
    for line in record.failure.iter().flat_map(|failure| &failure.log) {
        note!("  | {line}");
    }
    Err(Exit { code: UNIT_FAILED, message: format!("{what} failed: {reason}") }.into())
}

/// Shows the progress of a run: a single updated line on a terminal, otherwise a line for each
/// change.
struct FollowedRun {
    units: Vec<Unit>,
    bar: Option<ProgressBar>,
    last: String,
    down_since: Option<Instant>,
    /// Whether the expected downtime has been shown.
    expected: bool,
}

impl FollowedRun {
    fn new(kind: Kind) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) =
                ProgressStyle::with_template("{spinner} [{elapsed_precise}] {wide_msg}")
            {
                bar.set_style(style);
            }
            bar.enable_steady_tick(TICK);
            bar
        });
        // The units with a status text, in the order of a run.
        let units = match kind {
            Kind::Backup => vec![
                Unit::Presync,
                Unit::FilesLive,
                Unit::Resume,
                Unit::Postgresql,
                Unit::Redis,
                Unit::Files,
            ],
            Kind::Restore => Restore::steps()
                .map(Unit::Restore)
                .chain([Restore::Finish.into(), Unit::Resume])
                .collect(),
        };
        Self { units, bar, last: String::new(), down_since: None, expected: false }
    }

    async fn show(&mut self, view: &mut UnitView<'_>, record: &Record) -> Result<()> {
        if let Some(expected) = record.expected.filter(|_| !self.expected) {
            self.expected = true;
            self.line(&format!("{}: GitLab will be down for about {expected}", record.stage));
        }
        // A hold is not a downtime: its search for a quiet moment keeps nobody.
        let hold = view.state(&Unit::Hold.to_string()).await?;
        let down = matches!(record.stage.as_str(), "capture" | "restore" | "resume")
            && hold.active.is_down();
        self.down_since =
            if down { self.down_since.or_else(|| Some(Instant::now())) } else { None };
        let mut texts = Vec::new();
        for unit in self.units.iter().map(ToString::to_string) {
            // A unit that is only queued still has the status text of its last start.
            let lost = "cannot follow the run any longer";
            if view.state(&unit).await.context(lost)?.active.is_running() {
                // A new text is no change of the unit's state.
                let now = view.manager().state(&unit).await.context(lost)?;
                texts.extend(Some(now.status_text).filter(|text| !text.is_empty()));
            }
        }
        let text = if texts.is_empty() {
            record.stage.clone()
        } else {
            format!("{}: {}", record.stage, texts.join("; "))
        };
        match &self.bar {
            Some(bar) => {
                let down = self.down_since.map(|since| {
                    format!(" (GitLab down for {:.1} s)", since.elapsed().as_secs_f64())
                });
                bar.set_message(
                    text::clean(&format!("{text}{}", down.unwrap_or_default())).into_owned(),
                );
            }
            None if text != self.last => note!("{text}"),
            None => {}
        }
        self.last = text;
        Ok(())
    }

    /// Prints a line that stays above the progress line.
    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text::clean(text)),
            None => note!("{text}"),
        }
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
