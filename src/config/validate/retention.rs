//! `[retention]`

use super::rules::{self, Refusal};
use super::{Checker, Section};
use crate::config::{Retention, raw};

pub(super) fn check(checker: &mut Checker, section: &Section, raw: raw::Retention) -> Retention {
    let counts = [
        ("keep-last", &raw.keep_last),
        ("keep-daily", &raw.keep_daily),
        ("keep-weekly", &raw.keep_weekly),
        ("keep-monthly", &raw.keep_monthly),
        ("keep-yearly", &raw.keep_yearly),
    ];
    // 0 keeps nothing by that rule, as if the key were absent.
    let [keep_last, keep_daily, keep_weekly, keep_monthly, keep_yearly] =
        counts.map(|(name, field)| {
            let count = checker
                .value(section, name, field.as_ref(), |value| rules::number(*value, 0, i32::MAX));
            count.map(i32::unsigned_abs).filter(|count| *count > 0)
        });
    let keep_within = checker.value(section, "keep-within", raw.keep_within.as_ref(), |text| {
        rules::timespan_above_zero(text)
    });
    let keep_min = checker.value(section, "keep-min", raw.keep_min.as_ref(), |value| {
        rules::number(*value, 0, i32::MAX)
    });
    let keep_min = keep_min.map(i32::unsigned_abs);
    let retention = Retention {
        keep_last,
        keep_daily,
        keep_weekly,
        keep_monthly,
        keep_yearly,
        keep_within,
        keep_min,
    };
    // Without any rule every run is kept; with only zeros every run would be removed.
    let zero = counts
        .into_iter()
        .find(|(_, field)| field.as_ref().is_some_and(|value| *value.get_ref() == 0));
    if let (false, Some((name, field))) = (retention.is_set(), zero) {
        let refusal = Refusal::new(
            "0 for every reason would keep no backup at all",
            "one above 0, or no [retention] to keep them all",
        );
        checker.refuse(&section.field(name, field.as_ref()), refusal);
    }
    retention
}
