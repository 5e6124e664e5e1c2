//! Where things stand, for people.

use jiff::Timestamp;

use super::Status;
use crate::finding::Finding;
use crate::paths;
use crate::runs::{Outcome, Record, Verified};
use crate::say;
use crate::units::Unit;
use crate::values::{ago, dated};

/// Prints it.
pub(super) fn tell(status: &Status, restoring: bool, now: Timestamp) {
    status.wrong.iter().for_each(|line| say!("WRONG: {line}"));
    say!(
        "now:   {}",
        match (status.running, restoring) {
            (true, _) => "a backup is going on",
            (false, true) => "a restore is going on",
            (false, false) => "nothing is going on",
        }
    );
    tell_of_runs(status, restoring, now);
    let never = || "no run was verified yet".to_owned();
    say!("verify: {}", status.verified.as_ref().map_or_else(never, |last| verified(last, now)));
    let without_drill = status.verified.as_ref().is_some_and(|last| !last.drill);
    if let Some(drilled) = status.drilled.as_ref().filter(|_| without_drill) {
        say!("drill:  {}", verified(drilled, now));
    }
    say!("timer: {} (systemctl list-timers {})", status.timer, Unit::Timer);
    status.left.iter().for_each(|line| say!("left:  {line}"));
    for why in status.half_restored.iter().chain(&status.unknown_paused) {
        say!("DOWN:  {why}");
    }
    if !status.paused.is_empty() {
        say!("DOWN:  {} ({})", status.paused.join(", "), paths::PAUSED);
    }
}

fn tell_of_runs(status: &Status, restoring: bool, now: Timestamp) {
    let running = status.running;
    let last = status.last.as_ref();
    say!("last:  {}", last.map_or("no run yet".to_owned(), |record| line(record, running, now)));
    for warning in last.iter().flat_map(|record| &record.warnings) {
        say!("warning: {warning}");
    }
    if let Some(record) = &status.last_complete {
        say!("good:  {}", line(record, running, now));
    }
    if let Some(record) = &status.restore {
        say!("restore: {}", line(record, restoring, now));
    }
}

fn line(record: &Record, running: bool, now: Timestamp) -> String {
    let reason =
        record.failure.as_ref().map_or(String::new(), |failure| format!(": {}", failure.reason));
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
    let when = ago(record.finished.unwrap_or(record.started), now);
    format!("{} {outcome} in stage {} ({when}){away}{reason}", record.id, record.stage)
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
