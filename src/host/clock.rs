//! The system clock and the monotonic clock.

use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};

/// A source of time; tests replace it.
pub trait Clock {
    /// The time of the system clock.
    fn now(&self) -> Timestamp;

    /// Microseconds of CLOCK_MONOTONIC, which systemd's timestamps use.
    fn monotonic(&self) -> u64;
}

/// The clocks of this host.
pub struct HostClock;

impl Clock for HostClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn monotonic(&self) -> u64 {
        let now = clock_gettime(ClockId::Monotonic);
        u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000
            + u64::try_from(now.tv_nsec).unwrap_or(0) / 1000
    }
}
