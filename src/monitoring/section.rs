//! `[monitoring]`: the keys that are not a system's, and the systems that are configured.

use crate::schema::rules;
use crate::schema::{Checker, Section};
use crate::values::Timespan;

use super::{Raw, ReportConfig, SilenceConfig, check_systems};

const ON_ERROR: [(&str, OnError); 2] = [("warn", OnError::Warn), ("abort", OnError::Abort)];

/// `[monitoring]`
#[derive(Debug, Clone)]
pub struct Monitoring {
    /// What happens to a run if a silence fails.
    pub on_error: OnError,
    /// How long silences outlast the run, so that the monitoring sees GitLab recover first.
    pub grace: Timespan,
    /// How long a run waits for its silences to take effect.
    pub wait: Timespan,
    /// The systems to silence during a run.
    pub silences: Vec<SilenceConfig>,
    /// The systems that receive a report of each run.
    pub reports: Vec<ReportConfig>,
}

/// `[monitoring] on-error`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    /// The run continues with a warning.
    Warn,
    /// The run ends before GitLab is stopped.
    Abort,
}

/// Checks `[monitoring]` and the sections below it.
pub(crate) fn check(checker: &mut Checker, section: &Section, raw: Raw) -> Monitoring {
    let on_error = checker
        .value(section, "on-error", raw.on_error.as_ref(), |word| rules::word(word, &ON_ERROR));
    let grace = checker.value(section, "grace", raw.grace.as_ref(), |text| rules::timespan(text));
    let wait = checker.value(section, "wait", raw.wait.as_ref(), |text| rules::timespan(text));
    let mut monitoring = Monitoring {
        on_error: on_error.unwrap_or(OnError::Warn),
        grace: grace.unwrap_or(Timespan::from_secs(300)),
        wait: wait.unwrap_or(Timespan::from_secs(150)),
        silences: Vec::new(),
        reports: Vec::new(),
    };
    check_systems(checker, raw, &mut monitoring);
    monitoring
}
