//! Which runs stay: the policy of `restic forget`, per run instead of per snapshot. Pure.
//!
//! Written out because the library of the built-in engine judges the weeks around New Year's Eve
//! otherwise than restic does.

use jiff::tz::TimeZone;
use jiff::{Timestamp, ZonedDateTime};

use crate::config::Retention;
use crate::values::RunId;

/// What becomes of a run, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fate {
    /// The run.
    pub run: RunId,
    /// It stays.
    pub keep: bool,
    /// Why it stays; empty if it goes.
    pub reasons: Vec<&'static str>,
}

/// One reason to keep: the newest run of each period, for so many periods.
struct Bucket {
    reason: &'static str,
    left: u32,
    /// Two runs of one period have the same.
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

    fn takes(&mut self, time: &ZonedDateTime, index: usize) -> bool {
        let period = (self.period)(time, index);
        if self.left == 0 || self.last == Some(period) {
            return false;
        }
        self.left -= 1;
        self.last = Some(period);
        true
    }
}

/// Decides on `runs` by the time at which each started, newest first. Days begin at midnight in
/// `zone`. The newest stays whatever the policy says.
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
            .filter_map(|bucket| bucket.takes(&local, index).then_some(bucket.reason))
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
