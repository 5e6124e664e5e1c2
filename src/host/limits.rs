//! Resource limits and usage of this process.

use procfs::process::Process;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit of open files to the hard limit: a walk needs a descriptor for each level
/// of a deep directory, and the inherited limit is often 1024.
pub fn raise() {
    let limit = getrlimit(Resource::Nofile);
    // If this fails, opening a file may fail later, with an error.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// The peak memory of this process in MiB: VmHWM, proc_pid_status(5).
pub fn peak() -> Option<u64> {
    Some(Process::myself().ok()?.status().ok()?.vmhwm? / 1024)
}
