//! Prints the status as text.

use jiff::Timestamp;

use super::Status;
use crate::finding::Finding;
use crate::paths;
use crate::runs::{Outcome, Record, Verified};
use crate::say;
use crate::units::Unit;
use crate::values::{ago, dated};

/// Prints the status. `restoring`: a restore is running.
pub(super) fn print(status: &Status, restoring: bool, now: Timestamp) {
    status.wrong.iter().for_each(|line| say!("WRONG: {line}"));
    say!(
        "now:   {}",
        match (status.running, restoring) {
            (true, _) => "a backup is going on",
            (false, true) => "a restore is going on",
            (false, false) => "nothing is going on",
        }
    );
    print_runs(status, restoring, now);
    let never = || "no run has been verified yet".to_owned();
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

fn print_runs(status: &Status, restoring: bool, now: Timestamp) {
    let running = status.running;
    let last = status.last.as_ref();
    say!("last:  {}", last.map_or("no run yet".to_owned(), |record| run(record, running, now)));
    for warning in last.iter().flat_map(|record| &record.warnings) {
        say!("warning: {warning}");
    }
    if let Some(record) = &status.last_complete {
        say!("good:  {}", run(record, running, now));
    }
    if let Some(record) = &status.restore {
        say!("restore: {}", run(record, restoring, now));
    }
}

/// One run or restore in a line. `running`: its executor is running.
fn run(record: &Record, running: bool, now: Timestamp) -> String {
    let reason =
        record.failure.as_ref().map_or(String::new(), |failure| format!(": {}", failure.reason));
    let outcome = match record.outcome {
        // The record has no end, but the executor is gone: a crash or a reboot.
        Outcome::Running if !running => "cut off",
        Outcome::Running => "running",
        Outcome::Complete => "complete",
        Outcome::Failed => "failed",
    };
    let downtime = match (record.phases(), record.expected) {
        (Some(phases), _) => format!(", {phases}"),
        (None, Some(expected)) if record.outcome == Outcome::Running && running => {
            format!(", GitLab is expected to be down for {expected}")
        }
        _ => String::new(),
    };
    let when = ago(record.finished.unwrap_or(record.started), now);
    format!("{} {outcome} in stage {} ({when}){downtime}{reason}", record.id, record.stage)
}

/// The result of a verification in a line.
fn verified(last: &Verified, now: Timestamp) -> String {
    let run = last.run.as_ref().map_or("no run", |run| run.as_str());
    let how = if last.drill { "verified with a drill" } else { "verified" };
    let at = |time: Timestamp| dated(time, now);
    let Some(finished) = last.finished else {
        return format!("{run} is being {how} since {}, or was cut off", at(last.started));
    };
    if last.ok {
        return format!("{run} {how}, nothing is wrong ({})", at(finished));
    }
    let wrong: Vec<String> = last.wrong.iter().map(Finding::line).collect();
    format!("{run} {how}, and WRONG ({}): {}", at(finished), wrong.join("; "))
}
