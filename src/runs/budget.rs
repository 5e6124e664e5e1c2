//! The downtime budget: an estimate of the downtime, before GitLab is stopped.

use std::fmt;

use super::{Downtime, Outcome, Record};

/// The number of runs that the estimate uses: enough to ignore an exceptional one.
const RUNS: usize = 5;
/// Bytes per second at which changed files are copied, from a busy disk.
const COPY: f64 = 100e6;

/// What the first pass predicts for the window.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ahead {
    /// Seconds for the walk over all entries.
    pub walk: f64,
    /// The bytes that will probably change between the passes.
    pub changed: u64,
}

/// The expected downtime.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Budget {
    /// The expected downtime, split like the actual one.
    pub expected: Downtime,
    /// The number of runs that it is based on.
    pub runs: usize,
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GitLab will be down for about {}", self.expected)
    }
}

/// The budget based on `records`, newest first; none if there is no complete run.
pub fn budget(records: &[Record], ahead: Ahead) -> Option<Budget> {
    let complete = records.iter().filter(|record| record.outcome == Outcome::Complete);
    let past: Vec<Downtime> = complete.filter_map(|record| record.downtime).take(RUNS).collect();
    if past.is_empty() {
        return None;
    }
    let median = |part: fn(&Downtime) -> f64| {
        let mut seconds: Vec<f64> = past.iter().map(part).collect();
        seconds.sort_by(f64::total_cmp);
        seconds[seconds.len() / 2]
    };
    #[allow(clippy::cast_precision_loss)]
    let copy = ahead.changed as f64 / COPY;
    let capture = median(|past| past.capture).max(ahead.walk + copy);
    Some(Budget {
        expected: Downtime {
            stop: median(|past| past.stop),
            capture,
            start: median(|past| past.start),
        },
        runs: past.len(),
    })
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn run(outcome: Outcome, capture: f64) -> Record {
        let mut record =
            Record::begin("20261124T023000Z-8f3c".parse().unwrap(), Timestamp::UNIX_EPOCH);
        record.outcome = outcome;
        record.downtime = Some(Downtime { stop: 1.0, capture, start: 2.0 });
        record
    }

    #[test]
    fn an_exceptional_run_and_failed_runs_do_not_count() {
        let records: Vec<Record> = [
            (1.0, true),
            (60.0, true),
            (1.2, true),
            (900.0, false),
            (1.1, true),
            (1.3, true),
            (500.0, true),
            (500.0, true),
        ]
        .map(|(capture, complete)| {
            run(if complete { Outcome::Complete } else { Outcome::Failed }, capture)
        })
        .into();
        let budget = budget(&records, Ahead::default()).unwrap();
        assert_eq!((budget.expected.capture, budget.runs), (1.2, 5));
        assert_eq!(
            budget.to_string(),
            "GitLab will be down for about 4.2 s (stop 1.0, capture 1.2, start 2.0)"
        );
    }

    #[test]
    fn the_first_pass_can_only_increase_the_budget() {
        let records = [run(Outcome::Complete, 1.0)];
        let with =
            |walk, changed| budget(&records, Ahead { walk, changed }).unwrap().expected.capture;
        assert_eq!((with(0.1, 0), with(3.0, 0), with(3.0, 200_000_000)), (1.0, 3.0, 5.0));
        assert_eq!(budget(&[], Ahead { walk: 3.0, changed: 0 }), None);
    }
}
