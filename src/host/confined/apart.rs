//! Runs a confined program in a new process-id namespace, if this process may create one: when the
//! program ends, the kernel kills all its descendants, even detached ones. In a unit that may not
//! create namespaces, systemd kills them.
//!
//! There are three processes: one outside of the namespace, which the caller waits for; the first
//! process of the namespace, which ends with the one outside, and with which all others end; and
//! the program, which gains nothing if it gives up being bound to its parent.

use std::io::pipe;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal as Number};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};
use rustix::thread::CapabilitySet;

use crate::host::own;

/// The option of `helper confine`, once for the first process of the namespace, twice for the
/// program.
pub(super) const WITHIN: &str = "--within";

/// Whether this process may create a namespace.
pub(super) fn is_possible() -> bool {
    rustix::thread::capabilities(None)
        .is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN))
}

/// Executes this program as the first process of a new namespace and waits for it. Passes `signal`
/// on, and returns the exit status. None if the kernel does not support namespaces.
///
/// # Errors
/// If the program cannot be executed.
pub(super) fn execute(signal: Signal) -> Result<Option<i32>> {
    if unshare(CloneFlags::CLONE_NEWPID).is_err() {
        return Ok(None);
    }
    // The pipe closes when this process ends, also if it is killed.
    let (bound, _holding) = pipe().context("cannot make a pipe")?;
    execute_next(Stdio::from(bound), signal).map(Some)
}

/// As the first process of the namespace: executes the program and waits for it, and for orphaned
/// processes.
///
/// # Errors
/// If the program cannot be executed.
pub(super) fn lead(signal: Signal) -> Result<i32> {
    execute_next(Stdio::null(), signal)
}

/// Executes this program again, for the next process of the three.
fn execute_next(stdin: Stdio, signal: Signal) -> Result<i32> {
    let words: Vec<_> = std::env::args_os().skip(1).collect();
    // helper confine
    let (names, options) = words.split_at(words.len().min(2));
    let mut watched = SigSet::empty();
    watched.add(Number::SIGCHLD);
    if signal != Signal::KILL {
        watched.add(Number::try_from(signal.as_raw()).context("there is no such signal")?);
    }
    watched.thread_block().context("cannot wait for signals")?;
    let mut command = Command::new("/proc/self/exe");
    command.args(names).arg(WITHIN).args(options).stdin(stdin);
    let child = Pid::from_child(&command.spawn().context("cannot execute this program once more")?);
    loop {
        while let Some((ended, status)) =
            wait(WaitOptions::NOHANG).context("cannot wait for the program")?
        {
            if ended == child {
                return Ok(status.exit_status().unwrap_or(1));
            }
        }
        if watched.wait().context("cannot wait for signals")? != Number::SIGCHLD {
            // Fails if it has just ended.
            let _ = kill_process(child, signal);
        }
    }
}

/// Fails if the process outside has ended already. It has no process id inside of the namespace, so
/// this checks the pipe.
pub(super) fn ensure_waited_for() -> Result<()> {
    let stdin = std::io::stdin();
    let mut held = [PollFd::new(&stdin, PollFlags::empty())];
    poll(&mut held, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))
        .context("cannot ask for the parent")?;
    ensure!(!held[0].revents().contains(PollFlags::HUP), "the parent is gone");
    let nothing = own::open(Path::new("/dev/null")).context("cannot open /dev/null")?;
    rustix::stdio::dup2_stdin(&nothing).context("cannot close the standard input")
}
