//! Time spans as systemd.time(7) writes them.

use std::fmt;
use std::time::Duration;

/// A finite span of time, read as systemd reads it (`30min`, `2h 30min`, a bare number in seconds) and written in a form
/// that every systemd reads the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timespan(Duration);

impl Timespan {
    /// A span of whole seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// The span as the standard library has it.
    pub const fn duration(self) -> Duration {
        self.0
    }
}

impl From<Duration> for Timespan {
    fn from(duration: Duration) -> Self {
        Self(duration)
    }
}

impl fmt::Display for Timespan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.subsec_micros() {
            0 => write!(f, "{}s", self.0.as_secs()),
            micros => write!(f, "{}s {micros}us", self.0.as_secs()),
        }
    }
}

impl std::str::FromStr for Timespan {
    type Err = String;

    /// Reads a span as systemd.time(7) writes it; a bare number counts seconds.
    fn from_str(text: &str) -> Result<Self, String> {
        let allowed = || format!("'{text}' is not a finite time span, such as 90, \"30min\" or \"2h 30min\"");
        let trimmed = text.trim();
        if !trimmed.is_empty() && trimmed.bytes().all(|byte| byte.is_ascii_digit()) {
            return trimmed.parse().map(Self::from_secs).map_err(|_| allowed());
        }
        systemd_duration::stdtime::parse(trimmed).map(Self).map_err(|_| allowed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_spans_as_systemd_does() {
        for (text, seconds) in [("90", 90), ("30min", 1800), ("2h 30min", 9000), ("1d", 86400), ("10 s", 10)] {
            assert_eq!(text.parse(), Ok(Timespan::from_secs(seconds)), "{text}");
        }
        for bad in ["", "infinity", "soon", "-1", "5 parsecs"] {
            assert!(bad.parse::<Timespan>().is_err(), "{bad}");
        }
    }
}
