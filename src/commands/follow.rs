//! Follows what systemd does. Ending this ends nothing else.

use std::io::IsTerminal;
use std::time::Duration;

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::{Instant, sleep};

use crate::exit::{Exit, UNIT_FAILED};
use crate::host::text;
use crate::note;
use crate::paths::RootDirectory;
use crate::run::unstarted;
use crate::runs::{Kind, Outcome, Record};
use crate::systemd::{Manager, ServiceManager};
use crate::units::{Restore, Unit};

const PAUSE: Duration = Duration::from_millis(200);

/// Follows the executor to its end and returns its record; one that is equal to `before` is not yet
/// its.
pub(super) async fn follow(
    manager: &Manager,
    kind: Kind,
    before: Option<&Record>,
) -> Result<Record> {
    let unit = match kind {
        Kind::Backup => Unit::Run,
        Kind::Restore => Restore::Run.into(),
    };
    let mut view = View::new(kind);
    loop {
        // Before its record: one that has ended has left one.
        let executor = manager.state(&unit.to_string()).await?;
        let record = Record::last(&RootDirectory::host(), kind)?.filter(|record| {
            before.is_none_or(|before| (&before.id, before.started) != (&record.id, record.started))
        });
        match record {
            Some(record) if record.finished.is_some() && executor.is_settled() => {
                view.end();
                return Ok(record);
            }
            Some(record) => view.show(manager, &record).await?,
            None if executor.is_settled() => {
                return Err(not_started(manager, kind, &executor.name).await?.into());
            }
            None => {}
        }
        sleep(PAUSE).await;
    }
}

/// What to say when nothing is on record of a start that is over.
async fn not_started(manager: &Manager, kind: Kind, executor: &str) -> Result<Exit> {
    let why = match unstarted(manager, kind, Record::last(&RootDirectory::host(), kind)?.as_ref())
        .await?
    {
        Some(why) => format!("{}: {} (journalctl -u {})", why.unit, why.reason, why.unit),
        None => "see 'journalctl -b -u \"gitlab-backup*\"'".to_owned(),
    };
    Ok(Exit { code: UNIT_FAILED, message: format!("{executor} did not start: {why}") })
}

/// An error if `what` failed, after the last words of the unit that did.
pub(super) fn succeeded(what: &str, record: &Record) -> Result<()> {
    if record.outcome == Outcome::Complete && record.failure.is_none() {
        return Ok(());
    }
    let reason = record.failure.as_ref().map_or("no reason on record", |failure| &failure.reason);
    for line in record.failure.iter().flat_map(|failure| &failure.log) {
        note!("  | {line}");
    }
    Err(Exit { code: UNIT_FAILED, message: format!("{what} failed: {reason}") }.into())
}

/// A line that moves on a terminal; plain lines elsewhere.
struct View {
    units: Vec<Unit>,
    bar: Option<ProgressBar>,
    last: String,
    down_since: Option<Instant>,
    /// The expected downtime has been told.
    expected: bool,
}

impl View {
    fn new(kind: Kind) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) =
                ProgressStyle::with_template("{spinner} [{elapsed_precise}] {wide_msg}")
            {
                bar.set_style(style);
            }
            bar
        });
        // Those with something to say, the last word last.
        let units = match kind {
            Kind::Backup => vec![
                Unit::Presync,
                Unit::FilesLive,
                Unit::Resume,
                Unit::Postgresql,
                Unit::Redis,
                Unit::Files,
            ],
            Kind::Restore => Restore::in_window()
                .map(Unit::Restore)
                .chain([Restore::Finish.into(), Unit::Resume])
                .collect(),
        };
        Self { units, bar, last: String::new(), down_since: None, expected: false }
    }

    async fn show(&mut self, manager: &Manager, record: &Record) -> Result<()> {
        if let Some(expected) = record.expected.filter(|_| !self.expected) {
            self.expected = true;
            self.line(&format!("{}: GitLab will be down for about {expected}", record.stage));
        }
        let down = matches!(record.stage.as_str(), "capture" | "restore" | "resume");
        self.down_since =
            if down { self.down_since.or_else(|| Some(Instant::now())) } else { None };
        let mut said = Vec::new();
        for unit in &self.units {
            let state = manager.state(&unit.to_string()).await.context("lost sight of the run")?;
            // What is only queued still has the words of its last time.
            if state.active.is_running() && !state.status_text.is_empty() {
                said.push(state.status_text);
            }
        }
        let text = if said.is_empty() {
            record.stage.clone()
        } else {
            format!("{}: {}", record.stage, said.join("; "))
        };
        match &self.bar {
            Some(bar) => {
                let down = self.down_since.map(|since| {
                    format!(" (GitLab down for {:.1} s)", since.elapsed().as_secs_f64())
                });
                bar.set_message(
                    text::clean(&format!("{text}{}", down.unwrap_or_default())).into_owned(),
                );
                bar.tick();
            }
            None if text != self.last => note!("{text}"),
            None => {}
        }
        self.last = text;
        Ok(())
    }

    /// What stays to be read.
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
