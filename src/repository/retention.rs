//! Which runs are kept: the policy of `restic forget`, per run instead of per snapshot. Pure.
//!
//! Implemented here because the library of the built-in engine treats the weeks around New Year's
//! Eve differently from restic.

use jiff::tz::TimeZone;
use jiff::{Timestamp, ZonedDateTime};

use crate::config::Retention;
use crate::values::RunId;

/// Whether a run is kept, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fate {
    /// The run.
    pub run: RunId,
    /// Whether it is kept.
    pub keep: bool,
    /// Why it is kept; empty if it is removed.
    pub reasons: Vec<&'static str>,
}

/// One keep rule: the newest run of each period, for a number of periods.
struct Bucket {
    reason: &'static str,
    /// Periods for which the rule still keeps a run.
    left: u32,
    /// The number of a run's period: equal for two runs of the same period.
    period: fn(&ZonedDateTime, usize) -> i64,
    last: Option<i64>,
}

impl Bucket {
    fn new(
        reason: &'static str,
        count: Option<u32>,
        period: fn(&ZonedDateTime, usize) -> i64,
    ) -> Self {
        Self { reason, left: count.unwrap_or(0), period, last: None }
    }

    /// Whether the rule keeps the next run, which is older than those before.
    fn keeps(&mut self, time: &ZonedDateTime, index: usize) -> bool {
        let period = (self.period)(time, index);
        if self.left == 0 || self.last == Some(period) {
            return false;
        }
        self.left -= 1;
        self.last = Some(period);
        true
    }
}

/// Decides which of `runs` are kept, by the time at which each started. Days begin at midnight in
/// `zone`. The newest is kept whatever the policy says.
pub fn decide(policy: &Retention, runs: &[(RunId, Timestamp)], zone: &TimeZone) -> Vec<Fate> {
    let mut newest_first: Vec<_> = runs.iter().collect();
    newest_first.sort_by(|a, b| (b.1, &b.0).cmp(&(a.1, &a.0)));
    let newest = newest_first.first().map(|(_, time)| *time);
    let mut buckets = [
        Bucket::new("last", policy.keep_last, |_, index| i64::try_from(index).unwrap_or(i64::MAX)),
        Bucket::new("daily", policy.keep_daily, |time, _| {
            i64::from(time.year()) * 1000 + i64::from(time.day_of_year())
        }),
        Bucket::new("weekly", policy.keep_weekly, |time, _| {
            let week = time.date().iso_week_date();
            i64::from(week.year()) * 100 + i64::from(week.week())
        }),
        Bucket::new("monthly", policy.keep_monthly, |time, _| {
            i64::from(time.year()) * 100 + i64::from(time.month())
        }),
        Bucket::new("yearly", policy.keep_yearly, |time, _| i64::from(time.year())),
    ];
    let mut fates = Vec::new();
    for (index, (run, time)) in newest_first.into_iter().enumerate() {
        let local = time.to_zoned_datetime(zone.clone());
        let mut reasons: Vec<&str> = buckets
            .iter_mut()
            .filter_map(|bucket| bucket.keeps(&local, index).then_some(bucket.reason))
            .collect();
        let age =
            newest.map(|newest| newest.duration_since(*time).unsigned_abs()).unwrap_or_default();
        if policy.keep_within.is_some_and(|within| age < within.duration()) {
            reasons.push("within");
        }
        if !policy.is_set() {
            reasons.push("no [retention]");
        } else if index == 0 && reasons.is_empty() {
            reasons.push("the newest");
        }
        fates.push(Fate { run: run.clone(), keep: !reasons.is_empty(), reasons });
    }
    fates
}
