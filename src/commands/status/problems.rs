//! The problems that an admin must solve, the most urgent first. Pure: judges facts that the caller
//! collected.

use jiff::{SignedDuration, Timestamp};

use crate::host::remedy;
use crate::run::Unstarted;
use crate::runs::{Outcome, Record, Verified};
use crate::units::Unit;
use crate::values::{ago, dated};

/// The time that a run may need to write its record after the timer has started it.
const GRACE: SignedDuration = SignedDuration::from_secs(30);

/// The timer that starts runs.
#[derive(Debug, Default)]
pub(super) struct TimerState {
    /// `loaded`, `not-found`, `masked`, …
    pub(super) load: String,
    /// `enabled`, `disabled`, …; empty if it is unknown.
    pub(super) enablement: String,
    /// Whether the timer is active.
    pub(super) running: bool,
    /// The unmet condition that keeps the timer from running.
    pub(super) condition: Option<String>,
    /// When the timer last started a run.
    pub(super) last: Option<Timestamp>,
}

/// The facts that are judged.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    pub(super) now: Timestamp,
    /// A run or a restore is running, or GitLab is being started again.
    pub(super) busy: bool,
    /// A run is running.
    pub(super) running: bool,
    /// The last start of a run, if it failed before there was a record.
    pub(super) unstarted: Option<Unstarted>,
    pub(super) timer: TimerState,
    /// The executor's unit, if it is masked.
    pub(super) masked: Option<String>,
    /// The newest run.
    pub(super) last: Option<&'a Record>,
    /// The units that are down because of a run.
    pub(super) paused: Vec<&'a str>,
    /// Why GitLab is down, or may be.
    pub(super) down: Vec<&'a str>,
    pub(super) verified: Option<&'a Verified>,
}

/// One line for each problem.
pub(super) fn problems(facts: &Facts<'_>) -> Vec<String> {
    let mut problems: Vec<String> = facts.down.iter().map(|why| (*why).to_owned()).collect();
    if !facts.paused.is_empty() && !facts.busy {
        problems.push(format!(
            "down since a run, and nothing starts it: {} ('systemctl start {}')",
            facts.paused.join(", "),
            Unit::Resume
        ));
    }
    problems.extend(not_started(facts));
    problems.extend(
        facts
            .masked
            .iter()
            .map(|unit| format!("{unit} is masked, and no run starts: {}", remedy::unmask(unit))),
    );
    problems.extend(timer_problem(&facts.timer));
    problems.extend(facts.last.filter(|_| !facts.running).and_then(|last| failed(last, facts.now)));
    problems.extend(
        facts.verified.filter(|verified| verified.finished.is_some() && !verified.ok).map(
            |verified| match &verified.run {
                Some(run) => format!("the verification of {run} failed: see below"),
                None => "the last verification found no run to verify: see below".to_owned(),
            },
        ),
    );
    problems
}

/// A start of a run that left no record.
fn not_started(facts: &Facts<'_>) -> Option<String> {
    if facts.running {
        return None;
    }
    if let Some(Unstarted { unit, at: begun, reason }) = &facts.unstarted {
        return Some(format!(
            "the last run did not start ({}): {unit}: {reason} (journalctl -u {unit})",
            dated(*begun, facts.now)
        ));
    }
    // A timer that elapses during a run joins that run.
    let known = facts.last.map(|last| last.finished.unwrap_or(last.started));
    let missed = facts.timer.last.filter(|time| {
        known.is_none_or(|known| *time > known) && facts.now.duration_since(*time) > GRACE
    })?;
    Some(format!(
        "{} started a run of which nothing is on record ({}): journalctl -u 'gitlab-backup*'",
        Unit::Timer,
        dated(missed, facts.now)
    ))
}

/// A timer that does not start runs.
fn timer_problem(state: &TimerState) -> Option<String> {
    let timer = Unit::Timer;
    if state.load == "not-found" {
        return Some(format!(
            "the units are not installed, and no run starts by itself: '{}'",
            remedy::install()
        ));
    }
    let off = ["disabled", "masked"]
        .iter()
        .any(|off| state.enablement.starts_with(off) || state.load == *off);
    (off || !state.running).then(|| {
        let how = match off {
            true if state.load == "masked" => "masked",
            true => &state.enablement,
            false => "not running",
        };
        let remedy = match &state.condition {
            Some(condition) if !off => format!("its {condition} is not met"),
            _ if off && state.load == "masked" => remedy::unmask(&timer.to_string()),
            _ => remedy::enable(&timer.to_string()),
        };
        format!("{timer} is {how}, and no run starts by itself: {remedy}")
    })
}

/// A failure of the last run.
fn failed(last: &Record, now: Timestamp) -> Option<String> {
    let when = ago(last.finished.unwrap_or(last.started), now);
    let reason =
        last.failure.as_ref().map_or("no reason is on record", |failure| failure.reason.as_str());
    match (last.outcome, &last.failure) {
        (Outcome::Complete, None) => None,
        (Outcome::Complete, Some(_)) => Some(format!(
            "run {} is complete, but something after it failed ({when}): {reason}",
            last.id
        )),
        (Outcome::Failed, _) => {
            Some(format!("run {} failed in stage {} ({when}): {reason}", last.id, last.stage))
        }
        (Outcome::Running, _) => Some(format!(
            "run {} was cut off in stage {}, started {when}: a crash or a reboot",
            last.id, last.stage
        )),
    }
}

#[cfg(test)]
mod tests {
    use crate::runs::Failure;

    use super::*;

    const NOW: &str = "2026-11-29T09:00:00Z";

    fn record(outcome: Outcome, failure: Option<&str>) -> Record {
        let mut record = Record::begin(
            "20261129T023000Z-8f3c".parse().unwrap(),
            "2026-11-29T02:30:00Z".parse().unwrap(),
        );
        record.finished = Some("2026-11-29T02:40:00Z".parse().unwrap());
        record.outcome = outcome;
        record.failure = failure.map(|reason| Failure {
            unit: None,
            reason: reason.to_owned(),
            log: Vec::new(),
        });
        record
    }

    /// The facts of a host without problems.
    fn good(last: Option<&Record>) -> Facts<'_> {
        Facts {
            now: NOW.parse().unwrap(),
            busy: false,
            running: false,
            unstarted: None,
            timer: TimerState {
                load: "loaded".to_owned(),
                enablement: "enabled".to_owned(),
                running: true,
                condition: None,
                last: None,
            },
            masked: None,
            last,
            paused: Vec::new(),
            down: Vec::new(),
            verified: None,
        }
    }

    #[test]
    fn there_are_no_problems_if_the_last_run_succeeded_or_none_was_due() {
        assert!(problems(&good(None)).is_empty());
        let complete = record(Outcome::Complete, None);
        let mut facts = good(Some(&complete));
        facts.timer.last = Some("2026-11-29T02:29:58Z".parse().unwrap());
        assert!(problems(&facts).is_empty());
        // The timer elapsed during the run, or a moment ago.
        for time in ["2026-11-29T02:35:00Z", "2026-11-29T08:59:45Z"] {
            facts.timer.last = Some(time.parse().unwrap());
            assert!(problems(&facts).is_empty(), "{time}");
        }
    }

    #[test]
    fn a_start_without_a_record_comes_first_with_its_reason() {
        let bad = record(Outcome::Failed, Some("disk full"));
        let mut facts = good(Some(&bad));
        facts.timer.running = false;
        facts.timer.enablement = "disabled".to_owned();
        facts.unstarted = Some(Unstarted {
            unit: "gitlab-backup-run.service".to_owned(),
            at: "2026-11-29T08:00:00Z".parse().unwrap(),
            reason: "could not be started: its program cannot be run (exit status 203)".to_owned(),
        });
        let lines = problems(&facts);
        assert_eq!(
            lines[0],
            "the last run did not start (2026-11-29 08:00:00 UTC, 60 min ago): \
             gitlab-backup-run.service: could not be started: its program cannot be run (exit \
             status 203) (journalctl -u gitlab-backup-run.service)"
        );
        assert!(
            lines[1].contains("gitlab-backup-run.timer is disabled")
                && lines[2].contains("disk full"),
            "{lines:?}"
        );
        assert_eq!(lines.len(), 3);
    }

    #[test]
    fn the_timers_last_trigger_reveals_a_start_without_a_record() {
        let complete = record(Outcome::Complete, None);
        let mut facts = good(Some(&complete));
        facts.timer.last = Some("2026-11-29T08:30:00Z".parse().unwrap());
        assert!(problems(&facts)[0].contains("nothing is on record"), "{:?}", problems(&facts));
        facts.running = true;
        assert!(problems(&facts).is_empty());
    }
}
