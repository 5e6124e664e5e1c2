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
