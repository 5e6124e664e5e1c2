//! The host that a process acts on, or a test's replacement for it.

use crate::host::clock::{Clock, HostClock};
use crate::paths::RootDirectory;
use crate::systemd::{HostJournal, Journal, ServiceManager};

/// The parts of a host that work without PID 1.
#[derive(Clone, Copy)]
pub struct Base<'a> {
    /// The clock.
    pub clock: &'a dyn Clock,
    /// The journal.
    pub journal: &'a dyn Journal,
    /// The root directory.
    pub root: &'a RootDirectory,
}

impl<'a> Base<'a> {
    /// This host.
    pub fn host(root: &'a RootDirectory) -> Self {
        Self { clock: &HostClock, journal: &HostJournal, root }
    }

    /// Adds the service manager.
    pub fn with(self, manager: &'a dyn ServiceManager) -> Machine<'a> {
        Machine { manager, clock: self.clock, root: self.root }
    }
}

/// The host and its service manager.
#[derive(Clone, Copy)]
pub struct Machine<'a> {
    /// PID 1.
    pub manager: &'a dyn ServiceManager,
    /// The clock.
    pub clock: &'a dyn Clock,
    /// The root directory.
    pub root: &'a RootDirectory,
}
