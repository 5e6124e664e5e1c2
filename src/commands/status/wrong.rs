//! What somebody has to see to, the most urgent first. Judges facts and asks nobody.

use jiff::{SignedDuration, Timestamp};

use crate::host::remedy;
use crate::run::Unstarted;
use crate::runs::{Outcome, Record, Verified};
use crate::units::Unit;
use crate::values::{ago, dated};

/// What a run may take to write its record after the timer has started it.
const GRACE: SignedDuration = SignedDuration::from_secs(30);

/// The timer that starts runs.
#[derive(Debug, Default)]
pub(super) struct Clock {
    /// `loaded`, `not-found`, `masked`, …
    pub(super) load: String,
    /// `enabled`, `disabled`, …; empty where it could not be asked.
    pub(super) enablement: String,
    /// It waits for its time.
    pub(super) runs: bool,
    /// What keeps it from running.
    pub(super) condition: Option<String>,
    /// When it last started a run.
    pub(super) last: Option<Timestamp>,
}

/// What is judged.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    pub(super) now: Timestamp,
    /// A run, a restore or GitLab's return.
    pub(super) at_work: bool,
    /// A run.
    pub(super) running: bool,
    /// The last start, if it came to nothing.
    pub(super) unstarted: Option<Unstarted>,
    pub(super) clock: Clock,
    /// A unit without which no run starts, if somebody has masked it.
    pub(super) masked: Option<String>,
    /// The newest run.
    pub(super) last: Option<&'a Record>,
    /// What is down because of a run.
    pub(super) paused: Vec<&'a str>,
    /// Why GitLab is down, or may be.
    pub(super) down: Vec<&'a str>,
    pub(super) verified: Option<&'a Verified>,
}

/// A line for each; nothing if all is well.
pub(super) fn wrong(facts: &Facts<'_>) -> Vec<String> {
    let mut wrong: Vec<String> = facts.down.iter().map(|why| (*why).to_owned()).collect();
    if !facts.paused.is_empty() && !facts.at_work {
        wrong.push(format!(
            "down since a run, and nothing starts it: {} ('systemctl start {}')",
            facts.paused.join(", "),
            Unit::Resume
        ));
    }
    wrong.extend(not_started(facts));
    wrong.extend(
        facts
            .masked
            .iter()
            .map(|unit| format!("{unit} is masked, and no run starts: {}", remedy::unmask(unit))),
    );
    wrong.extend(clock(&facts.clock));
    wrong.extend(facts.last.filter(|_| !facts.running).and_then(|last| ended(last, facts.now)));
    wrong.extend(
        facts.verified.filter(|verified| verified.finished.is_some() && !verified.ok).map(
            |verified| match &verified.run {
                Some(run) => {
                    format!("{run} was verified, and something is wrong with it: see below")
                }
                None => "the last verify came to no run: see below".to_owned(),
            },
        ),
    );
    wrong
}

/// A start of which there is no record.
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
    // One that went on when the timer came was joined by it.
    let known = facts.last.map(|last| last.finished.unwrap_or(last.started));
    let missed = facts.clock.last.filter(|time| {
        known.is_none_or(|known| *time > known) && facts.now.duration_since(*time) > GRACE
    })?;
    Some(format!(
        "{} started a run of which nothing is on record ({}): journalctl -u 'gitlab-backup*'",
        Unit::Timer,
        dated(missed, facts.now)
    ))
}

fn clock(clock: &Clock) -> Option<String> {
    let timer = Unit::Timer;
    if clock.load == "not-found" {
        return Some(format!(
            "nothing is installed, and no run starts by itself: '{}'",
            remedy::install()
        ));
    }
    let off = ["disabled", "masked"]
        .iter()
        .any(|off| clock.enablement.starts_with(off) || clock.load == *off);
    (off || !clock.runs).then(|| {
        let how = match off {
            true if clock.load == "masked" => "masked",
            true => &clock.enablement,
            false => "not running",
        };
        let remedy = match &clock.condition {
            Some(condition) if !off => format!("its {condition} is not met"),
            _ if off && clock.load == "masked" => remedy::unmask(&timer.to_string()),
            _ => remedy::enable(&timer.to_string()),
        };
        format!("{timer} is {how}, and no run starts by itself: {remedy}")
    })
}

/// How the last run failed, if it did.
fn ended(last: &Record, now: Timestamp) -> Option<String> {
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
            "run {} was cut off in stage {}, begun {when}: a crash, or a reboot",
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

    fn well(last: Option<&Record>) -> Facts<'_> {
        Facts {
            now: NOW.parse().unwrap(),
            at_work: false,
            running: false,
            unstarted: None,
            clock: Clock {
                load: "loaded".to_owned(),
                enablement: "enabled".to_owned(),
                runs: true,
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
    fn nothing_is_wrong_where_the_last_run_went_well_or_none_was_due() {
        assert!(wrong(&well(None)).is_empty());
        let good = record(Outcome::Complete, None);
        let mut facts = well(Some(&good));
        facts.clock.last = Some("2026-11-29T02:29:58Z".parse().unwrap());
        assert!(wrong(&facts).is_empty());
        // It came while the run went on, or a moment ago.
        for time in ["2026-11-29T02:35:00Z", "2026-11-29T08:59:45Z"] {
            facts.clock.last = Some(time.parse().unwrap());
            assert!(wrong(&facts).is_empty(), "{time}");
        }
    }

    #[test]
    fn a_night_without_a_record_comes_first_with_its_reason() {
        let bad = record(Outcome::Failed, Some("disk full"));
        let mut facts = well(Some(&bad));
        facts.clock.runs = false;
        facts.clock.enablement = "disabled".to_owned();
        facts.unstarted = Some(Unstarted {
            unit: "gitlab-backup-run.service".to_owned(),
            at: "2026-11-29T08:00:00Z".parse().unwrap(),
            reason: "could not be started: its program cannot be run (exit status 203)".to_owned(),
        });
        let lines = wrong(&facts);
        assert_eq!(
            lines[0],
            "the last run did not start (2026-11-29 08:00:00 UTC, 60 min ago): gitlab-backup-run.service: could not be started: its program \
             cannot be run (exit status 203) (journalctl -u gitlab-backup-run.service)"
        );
        assert!(
            lines[1].contains("gitlab-backup-run.timer is disabled")
                && lines[2].contains("disk full"),
            "{lines:?}"
        );
        assert_eq!(lines.len(), 3);
    }

    #[test]
    fn the_timer_knows_of_a_night_that_systemd_has_forgotten() {
        let good = record(Outcome::Complete, None);
        let mut facts = well(Some(&good));
        facts.clock.last = Some("2026-11-29T08:30:00Z".parse().unwrap());
        assert!(wrong(&facts)[0].contains("nothing is on record"), "{:?}", wrong(&facts));
        facts.running = true;
        assert!(wrong(&facts).is_empty());
    }
}
