//! `[verify]`

use toml::Spanned;

use super::rules;
use super::{Checker, Section};
use crate::config::{Verify, raw};
use crate::values::Timespan;

pub(super) fn check(checker: &mut Checker, section: &Section, raw: raw::Verify) -> Verify {
    let calendar =
        checker.value(section, "calendar", raw.calendar.as_ref(), |text| rules::calendar(text));
    let delay = checker.value(section, "randomized-delay", raw.randomized_delay.as_ref(), |text| {
        rules::timespan(text)
    });
    let flag = |field: raw::Field<bool>, default| field.map_or(default, Spanned::into_inner);
    Verify {
        calendar,
        randomized_delay: delay.unwrap_or(Timespan::from_secs(60 * 60)),
        drill: flag(raw.drill, true),
        read_data: flag(raw.read_data, false),
        all_repositories: flag(raw.all_repositories, false),
    }
}
