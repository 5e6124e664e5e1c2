//! The milestones of a run as structured journal entries: `journalctl RUN_ID=…` shows those of one
//! run, `MESSAGE_ID=…` one kind in all runs.

use crate::runs::{Kind, Outcome, Record};
use crate::systemd::{Journal, Level};

/// The run has begun.
const BEGUN: &str = "a3b21ce00ae14d7e8a5c31ea7b4b8f10";
/// The run has entered `STAGE=`.
const STAGE: &str = "5f4f0ac3c1f54b1d9a9a0c2b7a1f6d22";
/// The run is complete.
const COMPLETE: &str = "c0d6a0e1f4a7490d8b1be0a4c6b0de33";
/// A problem that did not fail the run.
const WARNING: &str = "7d5a1b1f0a0b4e21b3a4f7c0de5f1a66";
/// The run has failed, or a step after it was complete.
const FAILED: &str = "e19f6a52b6c34c0c9df2a7d2b1c75e44";

/// Logs the begin of a run.
pub(super) fn begun(journal: &dyn Journal, kind: Kind, record: &Record) {
    log(journal, kind, record, BEGUN, Level::Info, "has begun", &[]);
}

/// Logs the stage that a run has entered. `more` is appended to the message.
pub(super) fn stage(journal: &dyn Journal, kind: Kind, record: &Record, more: &str) {
    log(
        journal,
        kind,
        record,
        STAGE,
        Level::Info,
        &format!("is in stage {}{more}", record.stage),
        &[],
    );
}

/// Logs how a run ended, and its warnings.
pub(super) fn ended(journal: &dyn Journal, kind: Kind, record: &Record) {
    for warning in &record.warnings {
        log(journal, kind, record, WARNING, Level::Warning, &format!("warns: {warning}"), &[]);
    }
    let downtime =
        record.downtime.map(|downtime| ("DOWNTIME_SECONDS", format!("{:.1}", downtime.total())));
    match &record.failure {
        None if record.outcome == Outcome::Complete => {
            let words = format!("is complete; {}", record.outage());
            log(journal, kind, record, COMPLETE, Level::Info, &words, downtime.as_slice());
        }
        failure => {
            let reason = failure
                .as_ref()
                .map_or("for a reason that is not known", |failure| &failure.reason);
            let unit = failure
                .as_ref()
                .and_then(|failure| failure.unit.clone())
                .map(|unit| ("FAILED_UNIT", unit));
            let fields: Vec<_> = unit.into_iter().chain(downtime).collect();
            let words = match record.outcome {
                Outcome::Complete => format!(
                    "is complete, but something after it failed in stage {}: {reason}",
                    record.stage
                ),
                _ => format!("failed in stage {}: {reason}", record.stage),
            };
            log(journal, kind, record, FAILED, Level::Err, &words, &fields);
        }
    }
}

fn log(
    journal: &dyn Journal,
    kind: Kind,
    record: &Record,
    id: &str,
    level: Level,
    words: &str,
    more: &[(&str, String)],
) {
    let what = match kind {
        Kind::Backup => "run",
        Kind::Restore => "restore",
    };
    let run = record.id.to_string();
    let fields = [("MESSAGE_ID", id), ("RUN_ID", &run), ("KIND", what), ("STAGE", &record.stage)];
    let more = more.iter().map(|(name, value)| (*name, value.as_str()));
    let fields: Vec<_> = fields.into_iter().chain(more).collect();
    journal.send(level, &format!("{what} {run} {words}"), &fields);
}
