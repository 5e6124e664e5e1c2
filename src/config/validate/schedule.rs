//! `[schedule]`

use super::rules::{self, Refusal};
use super::{Checker, Section};
use crate::config::{Schedule, raw};
use crate::values::{Calendar, Timespan};

pub(super) fn check(checker: &mut Checker, section: &Section, raw: raw::Schedule) -> Schedule {
    let calendar = checker.value(section, "calendar", raw.calendar.as_ref(), |text| {
        let allowed = "a calendar event as in systemd.time(7), like '*-*-* 02:30:00' (try it with 'systemd-analyze calendar')";
        text.parse::<Calendar>().map_err(|error| Refusal::new(format!("'{text}' is not a calendar event: {error}"), allowed))
    });
    let delay = checker.value(section, "randomized-delay", raw.randomized_delay.as_ref(), |text| rules::timespan(text));
    Schedule {
        calendar: calendar.map_or_else(|| "*-*-* 02:30:00".to_owned(), |calendar| calendar.to_string()),
        randomized_delay: delay.unwrap_or(Timespan::from_secs(10 * 60)),
    }
}
