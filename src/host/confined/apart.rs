//! A confined program is the first process of a process-id namespace of its own where this process may make one: with it go all that it has
//! started, whatever they did to get away. In a unit that may not, systemd ends what is left.

use std::io::pipe;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal as Number};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::CapabilitySet;

use crate::host::own;

/// Of `helper confine`, for the process within.
pub(super) const WITHIN: &str = "--within";

/// Whether a namespace can be made.
pub(super) fn can() -> bool {
    rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN))
}

/// Executes this program as the first process of a new namespace, waits for it, and returns the status to end with; `signal` is passed on. None
/// if the kernel makes no namespaces.
///
/// # Errors
/// If the program cannot be executed.
pub(super) fn execute(signal: Signal) -> Result<Option<i32>> {
    if unshare(CloneFlags::CLONE_NEWPID).is_err() {
        return Ok(None);
    }
    // What this process holds until its end: one that is killed lets go of it.
    let (bound, _holding) = pipe().context("cannot make a pipe")?;
    let words: Vec<_> = std::env::args_os().skip(1).collect();
    // helper confine
    let (names, options) = words.split_at(words.len().min(2));
    let mut watched = SigSet::empty();
    watched.add(Number::SIGCHLD);
    if signal != Signal::KILL {
        watched.add(Number::try_from(signal.as_raw()).context("there is no such signal")?);
    }
    watched.thread_block().context("cannot wait for signals")?;
    let mut child = Command::new("/proc/self/exe")
        .args(names)
        .arg(WITHIN)
        .args(options)
        .stdin(Stdio::from(bound))
        .spawn()
        .context("cannot execute this program once more")?;
    loop {
        if let Some(status) = child.try_wait().context("cannot wait for the program")? {
            return Ok(Some(status.code().unwrap_or(1)));
        }
        if watched.wait().context("cannot wait for signals")? != Number::SIGCHLD {
            // It may just have ended.
            let _ = kill_process(Pid::from_child(&child), signal);
        }
    }
}

/// Fails if the process that waits for this one is gone already. From outside the namespace it has no number here.
pub(super) fn ensure_waited_for() -> Result<()> {
    let stdin = std::io::stdin();
    let mut held = [PollFd::new(&stdin, PollFlags::empty())];
    poll(&mut held, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).context("cannot ask for the parent")?;
    ensure!(!held[0].revents().contains(PollFlags::HUP), "the parent is gone");
    let nothing = own::open(Path::new("/dev/null")).context("cannot open /dev/null")?;
    rustix::stdio::dup2_stdin(&nothing).context("cannot close the standard input")
}
