//! `status`: what goes on now and what came last.

use std::path::Path;

use anyhow::Result;
use serde::Serialize;

use crate::finding::Finding;
use crate::host::text;
use crate::paths;
use crate::runs::restore::{self, Journal};
use crate::runs::{Kind, Outcome, Record, Verified, paused};
use crate::say;
use crate::systemd::Manager;
use crate::units::{Restore, Unit};

/// The JSON of `status`: fields are added, never renamed.
#[derive(Serialize)]
struct Status {
    running: bool,
    /// The run that goes on, or the last.
    last: Option<Record>,
    last_complete: Option<Record>,
    /// The last restore.
    restore: Option<Record>,
    /// Why GitLab must not run, if a restore ended half way.
    half_restored: Option<String>,
    /// What is left beside what is live, and what becomes of it.
    left: Vec<String>,
    /// Units that are down because of a run and will be started again.
    paused: Vec<String>,
    /// Why it is not known what is down.
    unknown_paused: Option<String>,
    timer: String,
    /// How the last verify went, and of which run.
    verified: Option<Verified>,
}

/// Prints where things stand.
pub async fn status(json: bool) -> Result<()> {
    let manager = Manager::connect().await?;
    let running = !manager.state(&Unit::Run.to_string()).await?.is_settled();
    let restoring = !manager.state(&Unit::from(Restore::Run).to_string()).await?.is_settled();
    let records = Record::all()?;
    let timer = manager.state(&Unit::Timer.to_string()).await?;
    let (paused, unknown_paused) = match paused::load() {
        Ok(paused) => (paused, None),
        Err(error) => (None, Some(format!("{error:#}"))),
    };
    let status = Status {
        running,
        last_complete: records.iter().find(|record| record.outcome == Outcome::Complete).cloned(),
        last: records.into_iter().next(),
        paused: paused.unwrap_or_default().into_iter().map(|paused| paused.unit).collect(),
        unknown_paused,
        restore: Record::last(Kind::Restore)?,
        // A journal that cannot be read is told below.
        left: restore::left().unwrap_or_default().into_iter().filter(|_| !restoring).collect(),
        half_restored: Journal::half_way().filter(|_| !restoring),
        timer: if timer.load == "loaded" { timer.sub } else { timer.load },
        verified: Verified::last()?,
    };
    if json {
        text::out(&text::json(&status)?);
        return Ok(());
    }
    say!(
        "now:   {}",
        if status.running {
            "a backup is going on"
        } else if restoring {
            "a restore is going on"
        } else {
            "nothing is going on"
        }
    );
    let line = |record: &Record, running: bool| {
        let reason = record.failure.as_ref().map_or(String::new(), |failure| format!(": {}", failure.reason));
        let outcome = match record.outcome {
            // A run without an executor and without an end was cut off by a crash or a reboot.
            Outcome::Running if !running => "cut off",
            Outcome::Running => "running",
            Outcome::Complete => "complete",
            Outcome::Failed => "failed",
        };
        let away = match (record.downtime, record.expected) {
            (Some(away), _) => format!(", GitLab was away for {away}"),
            (None, _) if record.downtime_longer_than.is_some() => format!(", GitLab was away for {}", record.away()),
            (None, Some(expected)) if record.outcome == Outcome::Running && running => {
                format!(", GitLab is expected to be away for {expected}")
            }
            _ => String::new(),
        };
        format!("{} {outcome} in stage {}{away}{reason}", record.id, record.stage)
    };
    say!("last:  {}", status.last.as_ref().map_or("no run yet".to_owned(), |record| line(record, running)));
    if let Some(record) = &status.last_complete {
        say!("good:  {}", line(record, running));
    }
    if let Some(record) = &status.restore {
        say!("restore: {}", line(record, restoring));
    }
    say!("verify: {}", status.verified.as_ref().map_or("no run was verified yet".to_owned(), verified));
    say!("timer: {} (systemctl list-timers {})", status.timer, Unit::Timer);
    status.left.iter().for_each(|line| say!("left:  {line}"));
    if let Some(why) = &status.half_restored {
        say!("DOWN:  {why}");
    }
    if let Some(why) = &status.unknown_paused {
        say!("DOWN:  {why}");
    }
    if !status.paused.is_empty() {
        say!("DOWN:  {} ({})", status.paused.join(", "), Path::new(paths::PAUSED).display());
    }
    Ok(())
}

fn verified(last: &Verified) -> String {
    let run = last.run.as_ref().map_or("no run", |run| run.as_str());
    let how = if last.drill { "verified with a drill" } else { "verified" };
    let at = |time: jiff::Timestamp| time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string();
    let Some(finished) = last.finished else {
        return format!("{run} is being {how} since {}, or that was cut off", at(last.started));
    };
    if last.ok {
        return format!("{run} {how}, nothing is wrong ({})", at(finished));
    }
    let wrong: Vec<String> = last.wrong.iter().map(Finding::line).collect();
    format!("{run} {how}, and WRONG ({}): {}", at(finished), wrong.join("; "))
}
