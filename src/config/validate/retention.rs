//! `[retention]`

use super::rules::{self, Refusal};
use super::{Checker, Section};
use crate::config::Retention;
use crate::config::raw::{self, Field};

pub(super) fn check(checker: &mut Checker, section: &Section, raw: raw::Retention) -> Retention {
    // 0 is "none for that reason", which is what leaving it out says too.
    let mut keep = |name: &str, field: &Field<i64>| {
        checker.value(section, name, field.as_ref(), |value| rules::number(*value, 0, u32::MAX)).filter(|count| *count > 0)
    };
    let retention = Retention {
        keep_daily: keep("keep-daily", &raw.keep_daily),
        keep_weekly: keep("keep-weekly", &raw.keep_weekly),
        keep_monthly: keep("keep-monthly", &raw.keep_monthly),
    };
    // All left out keeps every run; all 0 would remove every run, the newest too.
    let zeros = [("keep-daily", &raw.keep_daily), ("keep-weekly", &raw.keep_weekly), ("keep-monthly", &raw.keep_monthly)];
    let zeros: Vec<_> = zeros.into_iter().filter(|(_, field)| field.as_ref().is_some_and(|value| *value.get_ref() == 0)).collect();
    if let (true, Some((name, field))) = (retention == Retention::default(), zeros.first()) {
        let refusal = Refusal::new("0 for every reason would keep no backup at all", "one above 0, or no [retention] to keep them all");
        checker.refuse(&section.field(name, field.as_ref()), refusal);
    }
    retention
}
