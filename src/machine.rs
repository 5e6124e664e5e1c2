//! What a process of ours acts on. The host's own, or one that a test has made up.

use crate::host::clock::Clock;
use crate::paths::RootDirectory;
use crate::systemd::ServiceManager;

/// The service manager, the time, and where files are.
#[derive(Clone, Copy)]
pub struct Machine<'a> {
    /// PID 1.
    pub manager: &'a dyn ServiceManager,
    /// What tells the time.
    pub clock: &'a dyn Clock,
    /// The root directory.
    pub root: &'a RootDirectory,
}
