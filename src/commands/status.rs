//! `status`: what is wrong, what goes on now and what came last.

mod wrong;

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;
use serde::Serialize;

use crate::exit::{Exit, UNIT_FAILED};
use crate::finding::Finding;
use crate::host::{own, remedy, text};
use crate::paths::{self, RootDirectory};
use crate::run::unstarted;
use crate::runs::restore::{self, Journal};
use crate::runs::{Kind, Outcome, Record, Verified, paused};
use crate::say;
use crate::systemd::{Manager, ServiceManager};
use crate::units::{Restore, Unit};
use crate::values::{ago, dated};

use wrong::{Clock, Facts};

/// Where systemd keeps the stamps of timers, systemd.timer(5) `Persistent=`.
const STAMPS: &str = "/var/lib/systemd/timers";
/// Between the making of a stamp and its first date.
const AT_ONCE: Duration = Duration::from_secs(1);

/// The JSON of `status`: fields are added, never renamed.
#[derive(Serialize)]
struct Status {
    /// What somebody has to see to; the exit code is 3 unless there is nothing.
    wrong: Vec<String>,
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
    /// How the last one with a drill went, which may be an earlier one.
    drilled: Option<Verified>,
}

/// Prints where things stand; fails if anything is wrong.
pub async fn status(json: bool) -> Result<()> {
    let manager = Manager::connect().await?;
    let now = Timestamp::now();
    let executor = manager.state(&Unit::Run.to_string()).await?;
    let running = !executor.is_settled();
    let restoring = !manager.state(&Unit::from(Restore::Run).to_string()).await?.is_settled();
    let records = Record::all(&RootDirectory::host())?;
    let timer = manager.state(&Unit::Timer.to_string()).await?;
    let resuming = !manager.state(&Unit::Resume.to_string()).await?.is_settled();
    let (paused, unknown_paused) = match paused::load(&RootDirectory::host()) {
        Ok(paused) => (paused, None),
        Err(error) => (None, Some(format!("{error:#}"))),
    };
    let verified = Verified::last()?;
    let half_restored = Journal::half_way(&RootDirectory::host()).filter(|_| !restoring);
    let facts = Facts {
        now,
        at_work: running || restoring || resuming,
        running,
        unstarted: unstarted(&manager, Kind::Backup, records.first()).await?,
        clock: Clock {
            load: timer.load.clone(),
            // There a target names it, and not what enables it.
            enablement: match remedy::is_nixos() {
                true => String::new(),
                false => manager.enablement(&timer.name).await.unwrap_or_default(),
            },
            runs: timer.active.is_running(),
            condition: timer.condition.clone(),
            last: manager
                .last_trigger(&timer.name)
                .await
                .unwrap_or_default()
                .filter(|_| has_triggered(&timer.name)),
        },
        masked: (executor.load == "masked").then_some(executor.name),
        last: records.first(),
        paused: paused.iter().flatten().map(|paused| paused.unit.as_str()).collect(),
        down: half_restored.iter().chain(&unknown_paused).map(String::as_str).collect(),
        verified: verified.as_ref(),
    };
    let status = Status {
        wrong: wrong::wrong(&facts),
        running,
        last_complete: records.iter().find(|record| record.outcome == Outcome::Complete).cloned(),
        last: records.into_iter().next(),
        paused: paused.unwrap_or_default().into_iter().map(|paused| paused.unit).collect(),
        unknown_paused,
        restore: Record::last(&RootDirectory::host(), Kind::Restore)?,
        // A journal that cannot be read is told below.
        left: restore::left(&RootDirectory::host())
            .unwrap_or_default()
            .into_iter()
            .filter(|_| !restoring)
            .collect(),
        half_restored,
        timer: if timer.load == "loaded" { timer.sub } else { timer.load },
        verified,
        drilled: Verified::last_drill()?,
    };
    if json {
        text::out(&text::json(&status)?);
        return judged(&status);
    }
    status.wrong.iter().for_each(|line| say!("WRONG: {line}"));
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
        let reason = record
            .failure
            .as_ref()
            .map_or(String::new(), |failure| format!(": {}", failure.reason));
        let outcome = match record.outcome {
            // A run without an executor and without an end was cut off by a crash or a reboot.
            Outcome::Running if !running => "cut off",
            Outcome::Running => "running",
            Outcome::Complete => "complete",
            Outcome::Failed => "failed",
        };
        let away = match (record.downtime, record.expected) {
            (Some(away), _) => format!(", GitLab was away for {away}"),
            (None, _) if record.downtime_longer_than.is_some() => {
                format!(", GitLab was away for {}", record.away())
            }
            (None, Some(expected)) if record.outcome == Outcome::Running && running => {
                format!(", GitLab is expected to be away for {expected}")
            }
            _ => String::new(),
        };
        format!(
            "{} {outcome} in stage {} ({}){away}{reason}",
            record.id,
            record.stage,
            ago(record.finished.unwrap_or(record.started), now)
        )
    };
    say!(
        "last:  {}",
        status.last.as_ref().map_or("no run yet".to_owned(), |record| line(record, running))
    );
    status
        .last
        .iter()
        .flat_map(|record| &record.warnings)
        .for_each(|warning| say!("warning: {warning}"));
    if let Some(record) = &status.last_complete {
        say!("good:  {}", line(record, running));
    }
    if let Some(record) = &status.restore {
        say!("restore: {}", line(record, restoring));
    }
    say!(
        "verify: {}",
        status
            .verified
            .as_ref()
            .map_or("no run was verified yet".to_owned(), |last| self::verified(last, now))
    );
    if let Some(drilled) =
        status.drilled.as_ref().filter(|_| status.verified.as_ref().is_some_and(|last| !last.drill))
    {
        say!("drill:  {}", self::verified(drilled, now));
    }
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
    judged(&status)
}

/// Whether the timer's stamp tells of a start. systemd makes one when a `Persistent=` timer is
/// first started, and after a reboot takes that for one.
fn has_triggered(timer: &str) -> bool {
    let Ok(stamp) = own::metadata(Path::new(STAMPS).join(format!("stamp-{timer}"))) else {
        return true;
    };
    // Where a file system keeps no time of birth it cannot be told.
    let (Ok(made), Ok(changed)) = (stamp.created(), stamp.modified()) else { return true };
    changed.duration_since(made).unwrap_or_default() > AT_ONCE || made > changed
}

/// Everything has been said: only the exit code is left.
fn judged(status: &Status) -> Result<()> {
    if status.wrong.is_empty() {
        Ok(())
    } else {
        Err(Exit { code: UNIT_FAILED, message: String::new() }.into())
    }
}

fn verified(last: &Verified, now: Timestamp) -> String {
    let run = last.run.as_ref().map_or("no run", |run| run.as_str());
    let how = if last.drill { "verified with a drill" } else { "verified" };
    let at = |time: Timestamp| dated(time, now);
    let Some(finished) = last.finished else {
        return format!("{run} is being {how} since {}, or that was cut off", at(last.started));
    };
    if last.ok {
        return format!("{run} {how}, nothing is wrong ({})", at(finished));
    }
    let wrong: Vec<String> = last.wrong.iter().map(Finding::line).collect();
    format!("{run} {how}, and WRONG ({}): {}", at(finished), wrong.join("; "))
}
