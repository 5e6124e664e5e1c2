//! `run`: start a backup and follow it. The work is systemd's: this command can be ended at any time and nothing else ends.

use std::io::IsTerminal;
use std::time::Duration;

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::{Instant, sleep};

use crate::cli::{ALREADY_RUNNING, Exit, UNIT_FAILED};
use crate::runs::{Outcome, Record};
use crate::systemd::Manager;
use crate::units::Unit;
use crate::values::RunId;

const PAUSE: Duration = Duration::from_millis(200);
/// How long the executor may take until its record is there.
const START_PATIENCE: Duration = Duration::from_secs(30);

/// Starts the target and follows the run to its end.
pub async fn run(no_wait: bool, json: bool) -> Result<()> {
    let manager = Manager::connect().await?;
    let executor = Unit::Run.to_string();
    let state = manager.state(&executor).await?;
    if state.load != "loaded" {
        anyhow::bail!("{executor} is not installed: 'gitlab-backup install' first");
    }
    let joined = !state.is_settled();
    let before = Record::current()?.map(|record| record.id);
    if joined && no_wait {
        return Err(Exit { code: ALREADY_RUNNING, message: "a backup is already going on".to_owned() }.into());
    }
    if joined {
        eprintln!("a backup is already going on: following it");
    } else {
        manager.hold(&executor).await?;
        manager.start(&Unit::Target.to_string(), "replace").await?;
    }
    if no_wait {
        return Ok(());
    }
    let record = follow(&manager, if joined { None } else { before.as_ref() }).await?;
    if json {
        println!("{}", serde_json::to_string_pretty(&record)?);
    }
    match (&record.outcome, &record.failure) {
        (Outcome::Complete, None) => {
            let downtime = record.downtime.map_or(0.0, |downtime| downtime.total());
            eprintln!("run {} is complete; GitLab was down for {downtime:.1} s", record.id);
            Ok(())
        }
        (_, failure) => {
            let reason = failure.as_ref().map_or("no reason on record", |failure| &failure.reason);
            for line in failure.iter().flat_map(|failure| &failure.log) {
                eprintln!("  | {line}");
            }
            Err(Exit { code: UNIT_FAILED, message: format!("run {} failed: {reason}", record.id) }.into())
        }
    }
}

async fn follow(manager: &Manager, before: Option<&RunId>) -> Result<Record> {
    let started = Instant::now();
    let mut view = View::new();
    loop {
        let record = Record::current()?.filter(|record| Some(&record.id) != before);
        let executor = manager.state(&Unit::Run.to_string()).await?;
        match record {
            Some(record) if record.finished.is_some() && executor.is_settled() => {
                view.end();
                return Ok(record);
            }
            Some(record) => view.show(manager, &record).await?,
            None if executor.is_settled() && started.elapsed() > START_PATIENCE => {
                return Err(Exit {
                    code: UNIT_FAILED,
                    message: format!("{} did not start: see 'journalctl -b -u \"gitlab-backup*\"'", executor.name),
                }
                .into());
            }
            None => {}
        }
        sleep(PAUSE).await;
    }
}

/// A line that moves on a terminal; plain lines elsewhere.
struct View {
    bar: Option<ProgressBar>,
    last: String,
    down_since: Option<Instant>,
}

impl View {
    fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} [{elapsed_precise}] {wide_msg}") {
                bar.set_style(style);
            }
            bar
        });
        Self { bar, last: String::new(), down_since: None }
    }

    async fn show(&mut self, manager: &Manager, record: &Record) -> Result<()> {
        let down = matches!(record.stage.as_str(), "capture" | "resume");
        self.down_since = if down { self.down_since.or_else(|| Some(Instant::now())) } else { None };
        let mut text = record.stage.clone();
        for unit in [Unit::Presync, Unit::FilesLive, Unit::Resume, Unit::Postgresql, Unit::Redis, Unit::Files] {
            let state = manager.state(&unit.to_string()).await.context("lost sight of the run")?;
            if !state.is_settled() && !state.status_text.is_empty() {
                text = format!("{}: {}", record.stage, state.status_text);
            }
        }
        match &self.bar {
            Some(bar) => {
                let down = self.down_since.map(|since| format!(" (GitLab down for {:.1} s)", since.elapsed().as_secs_f64()));
                bar.set_message(format!("{text}{}", down.unwrap_or_default()));
                bar.tick();
            }
            None if text != self.last => eprintln!("{text}"),
            None => {}
        }
        self.last = text;
        Ok(())
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
