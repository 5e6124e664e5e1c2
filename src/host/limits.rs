//! What the kernel grants this process, and how much of it was used.

use procfs::process::Process;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the number of files that may be open to what is allowed: a walk holds a descriptor for
/// each level of a deep directory, and what is inherited is often 1024.
pub fn raise() {
    let limit = getrlimit(Resource::Nofile);
    // What cannot be raised is met later, by whoever needs more, in words.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// The most memory that this process has had so far, for the log: VmHWM in proc_pid_status(5), MiB.
pub fn peak() -> Option<u64> {
    Some(Process::myself().ok()?.status().ok()?.vmhwm? / 1024)
}
