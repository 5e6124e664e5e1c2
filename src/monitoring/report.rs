//! The report of a run: the JSON that webhooks and commands receive, and the text and the numbers
//! for the other receivers.

use jiff::Timestamp;
use serde::Serialize;

use crate::host;
use crate::runs::{How, Outcome, Part, Quiesced, Record, outage};
use crate::values::RunId;

/// How a run went. Its JSON is stable: fields are added, never renamed.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The run; none if it could not start.
    pub run: Option<RunId>,
    /// The host that is backed up.
    pub host: String,
    /// Complete and without any failure.
    pub success: bool,
    /// `complete` or `failed`; a run is complete when its manifest is stored, even if a later step
    /// failed.
    pub outcome: Outcome,
    /// The stage in which the run ended.
    pub stage: Option<String>,
    /// When it started.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub finished: Timestamp,
    /// From start to end.
    pub duration_seconds: Option<f64>,
    /// How long GitLab was down; none if unknown.
    pub downtime_seconds: Option<f64>,
    /// The least time that GitLab was down, if the run ended before GitLab was up again.
    pub downtime_longer_than: Option<f64>,
    /// How GitLab was kept from writing; none if unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quiesced: Option<Quiesced>,
    /// The unit that failed.
    pub unit: Option<String>,
    /// Why the unit failed.
    pub reason: Option<String>,
    /// The last lines of the unit in the journal.
    pub log: Vec<String>,
    /// Problems that did not fail the run.
    pub warnings: Vec<String>,
    /// The parts in the repository; empty unless the run is complete.
    pub parts: Vec<Part>,
    /// When the last complete run ended, this one included.
    pub last_complete: Option<Timestamp>,
}

impl Report {
    /// The report of a run that ended, `now` if no end is on record. `log` is the end of the
    /// executor's log, for a failure that has no log of its own.
    pub fn of(
        record: &Record,
        log: Vec<String>,
        last_complete: Option<Timestamp>,
        now: Timestamp,
    ) -> Self {
        let finished = record.finished.unwrap_or(now);
        let failure = record.failure.as_ref();
        Self {
            run: Some(record.id.clone()),
            host: host::name(),
            success: record.outcome == Outcome::Complete && failure.is_none(),
            outcome: if record.outcome == Outcome::Complete {
                Outcome::Complete
            } else {
                Outcome::Failed
            },
            stage: Some(record.stage.clone()),
            started: Some(record.started),
            finished,
            duration_seconds: Some(finished.duration_since(record.started).as_secs_f64()),
            downtime_seconds: record.downtime.map(|downtime| downtime.total()),
            downtime_longer_than: record.downtime_longer_than,
            quiesced: record.quiesced,
            unit: failure.and_then(|failure| failure.unit.clone()),
            reason: failure.map(|failure| failure.reason.clone()),
            log: failure
                .map(|failure| failure.log.clone())
                .filter(|lines| !lines.is_empty())
                .unwrap_or(log),
            warnings: record.warnings.clone(),
            parts: record.parts.clone(),
            last_complete,
        }
    }

    /// The report of a run whose executor never started.
    pub fn not_started(
        unit: &str,
        reason: Option<String>,
        log: Vec<String>,
        last_complete: Option<Timestamp>,
        now: Timestamp,
    ) -> Self {
        Self {
            run: None,
            host: host::name(),
            success: false,
            outcome: Outcome::Failed,
            stage: None,
            started: None,
            finished: now,
            duration_seconds: None,
            downtime_seconds: None,
            downtime_longer_than: None,
            quiesced: None,
            unit: Some(unit.to_owned()),
            reason: Some(reason.unwrap_or_else(|| format!("{unit} could not be started"))),
            log,
            warnings: Vec::new(),
            parts: Vec::new(),
            last_complete,
        }
    }

    /// 0 success, 1 complete but a later step failed, 2 failed.
    pub fn status(&self) -> u8 {
        match self.outcome {
            _ if self.success => 0,
            Outcome::Complete => 1,
            _ => 2,
        }
    }

    /// The bytes that the run has stored, if it is complete.
    pub fn bytes(&self) -> Option<u64> {
        (self.outcome == Outcome::Complete).then(|| self.parts.iter().map(|part| part.bytes).sum())
    }

    /// The report for people: the outcome in the first line, then warnings and the log.
    pub fn text(&self) -> String {
        let run = self.run.as_ref().map_or_else(|| "a run".to_owned(), |run| format!("run {run}"));
        let mut text = match &self.reason {
            None => format!("{run} on {} is complete", self.host),
            Some(reason) if self.outcome == Outcome::Complete => {
                format!("{run} on {} is complete, but: {reason}", self.host)
            }
            Some(reason) => format!("{run} on {} failed: {reason}", self.host),
        };
        if self.downtime_seconds.or(self.downtime_longer_than).is_some() {
            let held = self.quiesced.is_some_and(|quiesced| quiesced.how == How::Held);
            let outage = outage(held, self.downtime_seconds, self.downtime_longer_than);
            text.push_str(&format!("; {outage}"));
        }
        for line in self
            .warnings
            .iter()
            .map(|warning| format!("warning: {warning}"))
            .chain(self.log.iter().cloned())
        {
            text.push('\n');
            text.push_str(&line);
        }
        text.push('\n');
        text
    }
}

#[cfg(test)]
mod tests {
    use crate::runs::Failure;

    use super::*;

    #[test]
    fn a_complete_run_whose_last_step_failed_is_neither_well_nor_failed() {
        let started: Timestamp = "2026-11-24T02:30:00Z".parse().unwrap();
        let mut record = Record::begin(RunId::new(started, 1), started);
        let report = |record: &Record| Report::of(record, vec!["a line".to_owned()], None, started);
        record.outcome = Outcome::Complete;
        assert_eq!((report(&record).status(), report(&record).bytes()), (0, Some(0)));
        record.failure =
            Some(Failure { unit: None, reason: "off site".to_owned(), log: Vec::new() });
        assert_eq!((report(&record).status(), report(&record).success), (1, false));
        assert!(
            report(&record).text().contains("is complete, but: off site")
                && report(&record).text().ends_with("a line\n")
        );
        // The executor was killed: a run that is still marked as running is not complete.
        record.outcome = Outcome::Running;
        assert_eq!(
            (report(&record).status(), report(&record).outcome, report(&record).bytes()),
            (2, Outcome::Failed, None)
        );
        assert_eq!(Report::not_started("x.service", None, Vec::new(), None, started).status(), 2);
    }
}
