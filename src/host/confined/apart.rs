//! A confined program runs in a process-id namespace of its own where this process may make one:
//! what it has started ends with it, whatever it did to get away. In a unit that may not, systemd
//! ends what is left.
//!
//! Three processes: one outside, which whoever asked for the program waits for and ends; the
//! namespace's first, which is ours too, ends with the one outside, and takes all others with it;
//! and the program, which can give up being bound to its parent and gains nothing by it.

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

/// Of `helper confine`: once for the first process within, twice for the program.
pub(super) const WITHIN: &str = "--within";

/// Whether a namespace can be made.
pub(super) fn can() -> bool {
    rustix::thread::capabilities(None)
        .is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN))
}

/// Executes this program as the first process of a new namespace, waits for it, and returns the
/// status to end with; `signal` is passed on. None if the kernel makes no namespaces.
///
/// # Errors
/// If the program cannot be executed.
pub(super) fn execute(signal: Signal) -> Result<Option<i32>> {
    if unshare(CloneFlags::CLONE_NEWPID).is_err() {
        return Ok(None);
    }
    // What this process holds until its end: one that is killed lets go of it.
    let (bound, _holding) = pipe().context("cannot make a pipe")?;
    again(Stdio::from(bound), signal).map(Some)
}

/// The same within the namespace: its first process executes the program, and waits for whatever
/// loses its parent, too.
///
/// # Errors
/// If the program cannot be executed.
pub(super) fn lead(signal: Signal) -> Result<i32> {
    again(Stdio::null(), signal)
}

/// Executes this program once more, one step further within.
fn again(stdin: Stdio, signal: Signal) -> Result<i32> {
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
            // It may just have ended.
            let _ = kill_process(child, signal);
        }
    }
}

/// Fails if the process that waits for this one is gone already. From outside the namespace it has
/// no number here.
pub(super) fn ensure_waited_for() -> Result<()> {
    let stdin = std::io::stdin();
    let mut held = [PollFd::new(&stdin, PollFlags::empty())];
    poll(&mut held, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))
        .context("cannot ask for the parent")?;
    ensure!(!held[0].revents().contains(PollFlags::HUP), "the parent is gone");
    let nothing = own::open(Path::new("/dev/null")).context("cannot open /dev/null")?;
    rustix::stdio::dup2_stdin(&nothing).context("cannot close the standard input")
}
