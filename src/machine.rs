//! What a process of ours acts on. The host's own, or one that a test has made up.

use crate::host::clock::{Clock, HostClock};
use crate::paths::RootDirectory;
use crate::systemd::{HostJournal, Journal, ServiceManager};

/// What is there whether or not PID 1 answers.
#[derive(Clone, Copy)]
pub struct Base<'a> {
    /// What tells the time.
    pub clock: &'a dyn Clock,
    /// Where entries go, and the units' are.
    pub journal: &'a dyn Journal,
    /// The root directory.
    pub root: &'a RootDirectory,
}

impl<'a> Base<'a> {
    /// The host's own.
    pub fn host(root: &'a RootDirectory) -> Self {
        Self { clock: &HostClock, journal: &HostJournal, root }
    }

    /// With the service manager.
    pub fn with(self, manager: &'a dyn ServiceManager) -> Machine<'a> {
        Machine { manager, clock: self.clock, root: self.root }
    }
}

/// What everything that is decided while units run goes by.
#[derive(Clone, Copy)]
pub struct Machine<'a> {
    /// PID 1.
    pub manager: &'a dyn ServiceManager,
    /// What tells the time.
    pub clock: &'a dyn Clock,
    /// The root directory.
    pub root: &'a RootDirectory,
}
