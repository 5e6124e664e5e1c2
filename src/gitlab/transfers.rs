//! The processes of git that transfer objects for clients of Gitaly, and how far each push is.
//!
//! git receive-pack first receives the objects and checks them, with git index-pack or git
//! unpack-objects and git rev-list. It then runs pre-receive, moves the refs, and runs post-receive
//! (git's builtin/receive-pack.c). A push that is ended before the refs move has changed nothing;
//! one that is ended later has moved refs of which GitLab never hears.

use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context, Result};
use procfs::process::{Process, Syscall, all_processes};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// The command of a process of Gitaly, by which one is found that systemd does not manage.
const GITALY: &str = "gitaly";
/// The commands of git that serve clients.
const RECEIVE: &str = "receive-pack";
const FETCHES: [&str; 2] = ["upload-pack", "upload-archive"];
/// The children of git receive-pack before it moves a ref.
const BEFORE: [&str; 4] = ["index-pack", "unpack-objects", "rev-list", "pre-receive"];
/// Options with which git receive-pack only lists the refs.
const ADVERTISE: [&str; 2] = ["--advertise-refs", "--http-backend-info-refs"];
/// Options of git that are followed by their value.
const VALUED: [&str; 6] = ["-c", "-C", "--git-dir", "--work-tree", "--namespace", "--config-env"];
/// read(2), syscalls(2).
const READ: i64 = match () {
    () if cfg!(target_arch = "x86_64") => 0,
    () if cfg!(any(
        target_arch = "aarch64",
        target_arch = "riscv64",
        target_arch = "loongarch64"
    )) =>
    {
        63
    }
    () => 3,
};
/// How long a process may take to stop.
const STOPS: std::time::Duration = std::time::Duration::from_millis(200);

/// A process, and what it is doing.
struct Running {
    process: Process,
    parent: i32,
    /// The name of its program; for git, the subcommand.
    command: String,
    words: Vec<String>,
}

impl Running {
    fn of(process: Process) -> Option<Self> {
        let stat = process.stat().ok()?;
        let words = process.cmdline().ok()?;
        let command = subcommand(&words).unwrap_or(stat.comm);
        Some(Self { process, parent: stat.ppid, command, words })
    }

    /// Whether it only lists the refs, before a push.
    fn advertises(&self) -> bool {
        let lists = |word: &String| ADVERTISE.contains(&word.as_str());
        self.words.iter().any(lists)
    }

    fn pid(&self) -> i32 {
        self.process.pid()
    }
}

/// The subcommand of a call of git.
fn subcommand(words: &[String]) -> Option<String> {
    let (program, mut words) = (words.first()?, words[1..].iter());
    let program = Path::new(program).file_name()?.to_str()?;
    if program != "git" {
        return program.strip_prefix("git-").map(str::to_owned);
    }
    while let Some(word) = words.next() {
        if VALUED.contains(&word.as_str()) {
            words.next();
        } else if !word.starts_with('-') {
            return Some(word.clone());
        }
    }
    None
}

/// All processes of the host.
fn processes() -> Result<Vec<Running>> {
    let all = all_processes().context("cannot list the processes of this host")?;
    Ok(all.flatten().filter_map(Running::of).collect())
}

/// The processes of a Gitaly that systemd does not manage.
pub fn gitaly() -> Result<Vec<i32>> {
    let own = processes()?.into_iter().filter(|running| running.command == GITALY);
    Ok(own.map(|running| running.pid()).collect())
}

/// Ends the transfers below the processes `roots` that have changed nothing: fetches, and pushes
/// that have not moved a ref. Returns how many it has ended.
///
/// # Errors
/// If the processes cannot be listed.
pub fn cut(roots: &[i32]) -> Result<usize> {
    let all = processes()?;
    let below = |running: &&Running| is_below(&all, running, roots);
    let serves = |running: &&Running| {
        running.command == RECEIVE || FETCHES.contains(&running.command.as_str())
    };
    let ended = all.iter().filter(serves).filter(below).filter(|running| end(running));
    Ok(ended.count())
}

/// The pushes among the processes `group` that may have moved a ref. Exact if the processes are
/// frozen.
pub fn past_receiving(group: &[i32]) -> Vec<i32> {
    let all: Vec<Running> =
        group.iter().filter_map(|pid| Process::new(*pid).ok()).filter_map(Running::of).collect();
    let pushes = all.iter().filter(|running| running.command == RECEIVE && !running.advertises());
    pushes.filter(|push| !has_changed_nothing(push, &all)).map(Running::pid).collect()
}

/// What works for the process `root` outside of `group`, where it is not frozen with it: Gitaly can
/// have a control group for each repository. Fetches change nothing, and are left out.
///
/// # Errors
/// If the processes cannot be listed.
pub fn outside(root: i32, group: &[i32]) -> Result<Vec<i32>> {
    let all = processes()?;
    let below = all.iter().filter(|running| is_below(&all, running, &[root]));
    let outside = below.filter(|running| {
        !group.contains(&running.pid()) && !FETCHES.contains(&running.command.as_str())
    });
    Ok(outside.map(Running::pid).collect())
}

/// Whether one of `roots` is an ancestor of a process.
fn is_below(all: &[Running], running: &Running, roots: &[i32]) -> bool {
    let mut parent = running.parent;
    // The list is not of one moment, so it could have a circle.
    for _ in 0..all.len() {
        if roots.contains(&parent) {
            return true;
        }
        match all.iter().find(|other| other.pid() == parent) {
            Some(other) => parent = other.parent,
            None => return false,
        }
    }
    false
}

/// Opens the process `pid` for signals; none if it has ended, or is another by now.
pub(super) fn open(pid: i32, is_same: impl FnOnce() -> bool) -> Option<OwnedFd> {
    let descriptor = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
    // The descriptor is of the process that is looked at now, also if its PID is used again.
    is_same().then_some(descriptor)
}

/// Ends a transfer, unless it has changed something. A push is stopped while it is looked at, so
/// that it moves no ref meanwhile. Returns whether it was ended.
fn end(running: &Running) -> bool {
    let is_same = || {
        Process::new(running.pid())
            .and_then(|now| now.cmdline())
            .is_ok_and(|now| now == running.words)
    };
    let Some(descriptor) = open(running.pid(), is_same) else { return false };
    if running.command != RECEIVE {
        return pidfd_send_signal(&descriptor, Signal::KILL).is_ok();
    }
    if pidfd_send_signal(&descriptor, Signal::STOP).is_err() {
        return false;
    }
    let has_changed_nothing = || processes().is_ok_and(|all| has_changed_nothing(running, &all));
    if is_stopped(&running.process) && has_changed_nothing() {
        tracing::info!(pid = running.pid(), "a push that is still being received is ended");
        return pidfd_send_signal(&descriptor, Signal::KILL).is_ok();
    }
    if let Err(error) = pidfd_send_signal(&descriptor, Signal::CONT) {
        tracing::warn!(pid = running.pid(), "cannot be continued: {error}");
    }
    false
}

fn is_stopped(process: &Process) -> bool {
    let since = std::time::Instant::now();
    while since.elapsed() < STOPS {
        match process.stat() {
            Ok(stat) if stat.state == 'T' => return true,
            Ok(_) => std::thread::sleep(std::time::Duration::from_millis(1)),
            Err(_) => return false,
        }
    }
    false
}

/// Whether a push has not moved a ref yet, as far as can be seen from outside. `all` has its
/// children.
fn has_changed_nothing(push: &Running, all: &[Running]) -> bool {
    let mut children = all.iter().filter(|other| other.parent == push.pid()).peekable();
    if children.peek().is_none() {
        return waits_for_client(&push.process);
    }
    children.all(|child| BEFORE.contains(&child.command.as_str()))
}

/// Whether a process waits for input: git receive-pack reads nothing more once it moves refs.
fn waits_for_client(process: &Process) -> bool {
    matches!(
        process.syscall(),
        Ok(Syscall::Blocked { syscall_number: READ, argument_registers: [0, ..], .. })
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_subcommand_of_git_is_found_behind_its_options() {
        for (line, expected) in [
            ("git receive-pack --stateless-rpc /r.git", Some("receive-pack")),
            (
                "/usr/bin/git -c core.hooksPath=/h -C /r --bare upload-pack /r.git",
                Some("upload-pack"),
            ),
            ("git --git-dir /receive-pack -c x=upload-pack index-pack --stdin", Some("index-pack")),
            ("/usr/libexec/git-core/git-receive-pack /r.git", Some("receive-pack")),
            ("git --version", None),
            ("/bin/sh receive-pack", None),
        ] {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            assert_eq!(subcommand(&words).as_deref(), expected, "{line}");
        }
    }
}
