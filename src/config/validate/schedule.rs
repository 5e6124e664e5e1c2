//! `[schedule]`

use super::rules;
use super::{Checker, Section};
use crate::config::{Schedule, raw};
use crate::values::Timespan;

pub(super) fn check(checker: &mut Checker, section: &Section, raw: raw::Schedule) -> Schedule {
    let calendar =
        checker.value(section, "calendar", raw.calendar.as_ref(), |text| rules::calendar(text));
    let delay = checker.value(section, "randomized-delay", raw.randomized_delay.as_ref(), |text| {
        rules::timespan(text)
    });
    Schedule {
        calendar: calendar.unwrap_or_else(|| "*-*-* 02:30:00".to_owned()),
        randomized_delay: delay.unwrap_or(Timespan::from_secs(10 * 60)),
    }
}
