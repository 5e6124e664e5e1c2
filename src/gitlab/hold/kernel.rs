//! What a hold needs of the kernel. A trait, so that tests can replace it.

use std::collections::BTreeSet;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::path::PathBuf;

use anyhow::{Context, Result};
use procfs::process::Process;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, UCred, sendmsg_addr, socket_with,
};
use rustix::process::{Pid, PidfdFlags, Signal, getgid, getuid, pidfd_open, pidfd_send_signal};

use super::puma;
use crate::gitlab::{freeze, transfers};
use crate::host::own;
use crate::paths::{self, RootDirectory};
use crate::runs::held::Listener;

/// What a frozen unit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Member {
    /// Puma in cluster mode.
    Puma,
    /// Gitaly.
    Gitaly,
    /// Anything else: it has nothing that can be half way.
    Other,
}

/// What is in progress.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Work {
    /// The requests in Puma, by the inodes of their sockets.
    pub requests: BTreeSet<u64>,
    /// The pushes that may have moved a ref, by their processes.
    pub pushes: Vec<i32>,
}

impl Work {
    /// Whether nothing is in progress.
    pub fn is_none(&self) -> bool {
        self.requests.is_empty() && self.pushes.is_empty()
    }

    /// For messages.
    pub fn text(&self) -> String {
        format!("{} requests in Puma, {} pushes", self.requests.len(), self.pushes.len())
    }
}

/// The kernel, as far as a hold needs it.
pub trait Kernel {
    /// Fails if control groups cannot be frozen on this host.
    fn ensure_freezes(&self) -> Result<()>;

    /// Freezes a control group. Does not wait.
    fn freeze(&self, group: &str) -> Result<()>;

    /// Thaws a control group. Does nothing if it is gone.
    fn thaw(&self, group: &str) -> Result<()>;

    /// Whether every process of a control group is frozen.
    fn is_frozen(&self, group: &str) -> bool;

    /// When a process was started, in clock ticks since boot; none if it has ended.
    fn started(&self, pid: u32) -> Option<u64>;

    /// The name of a process.
    fn name(&self, pid: u32) -> Option<String>;

    /// Stops the listener of an SSH server, or continues it. Does nothing if it has ended.
    fn stop(&self, listener: &Listener, stop: bool) -> Result<()>;

    /// Whether the unit with this control group and main process is Puma in cluster mode.
    fn is_puma(&self, group: &str, main_pid: u32) -> bool;

    /// What is in progress in a unit. If it is frozen, `exact` also finds what works outside of its
    /// control group.
    fn work(&self, member: Member, group: &str, main_pid: u32, exact: bool) -> Result<Work>;

    /// Reports a unit as alive in the name of its main process, sd_notify(3) `WATCHDOG=1`.
    fn feed(&self, main_pid: u32) -> Result<()>;
}

/// The kernel of this host.
pub struct Linux<'a> {
    /// The root directory, for /sys/fs/cgroup and systemd's socket.
    pub root: &'a RootDirectory,
}

impl Linux<'_> {
    fn group(&self, group: &str) -> PathBuf {
        self.root.at(paths::CGROUP).join(group.trim_start_matches('/'))
    }

    /// The processes of a control group and of those below it.
    fn processes(&self, group: &str) -> Vec<i32> {
        let mut found = Vec::new();
        let mut directories = vec![self.group(group)];
        while let Some(directory) = directories.pop() {
            let pids = own::read_text(directory.join("cgroup.procs")).unwrap_or_default();
            found.extend(pids.lines().filter_map(|pid| pid.parse::<i32>().ok()));
            let below = own::entries(&directory).into_iter().flatten().flatten();
            let below = below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            directories.extend(below.map(|entry| entry.path()));
        }
        found
    }
}

impl Kernel for Linux<'_> {
    fn ensure_freezes(&self) -> Result<()> {
        freeze::ensure_possible(self.root, "hold")
    }

    fn freeze(&self, group: &str) -> Result<()> {
        own::write_to_kernel(self.group(group).join("cgroup.freeze"), "1")
    }

    fn thaw(&self, group: &str) -> Result<()> {
        let file = self.group(group).join("cgroup.freeze");
        match own::write_to_kernel(&file, "0") {
            // Its last process has ended, and its freeze with it.
            Err(_) if !file.exists() => Ok(()),
            written => written,
        }
    }

    fn is_frozen(&self, group: &str) -> bool {
        own::read_text(self.group(group).join("cgroup.events"))
            .is_ok_and(|events| events.lines().any(|line| line == "frozen 1"))
    }

    fn started(&self, pid: u32) -> Option<u64> {
        Some(process(pid)?.stat().ok()?.starttime)
    }

    fn name(&self, pid: u32) -> Option<String> {
        Some(process(pid)?.stat().ok()?.comm)
    }

    fn stop(&self, listener: &Listener, stop: bool) -> Result<()> {
        let signal = if stop { Signal::STOP } else { Signal::CONT };
        let pid = i32::try_from(listener.pid).ok().and_then(Pid::from_raw);
        let Some(open) = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) else {
            return Ok(());
        };
        // The descriptor is of the process that is looked at next, also if its PID is used again.
        if self.started(listener.pid) != Some(listener.started) {
            return Ok(());
        }
        match pidfd_send_signal(&open, signal) {
            Err(error) if error != rustix::io::Errno::SRCH => Err(error)
                .with_context(|| format!("cannot signal the listener of {}", listener.unit)),
            _ => Ok(()),
        }
    }

    fn is_puma(&self, group: &str, main_pid: u32) -> bool {
        i32::try_from(main_pid).is_ok_and(|main| puma::is_cluster(main, &self.processes(group)))
    }

    fn work(&self, member: Member, group: &str, main_pid: u32, exact: bool) -> Result<Work> {
        let main = i32::try_from(main_pid).unwrap_or_default();
        match member {
            Member::Puma => {
                let requests = puma::requests(main, &self.processes(group))?;
                Ok(Work { requests, ..Work::default() })
            }
            Member::Gitaly => {
                let processes = self.processes(group);
                let mut pushes = transfers::past_receiving(&processes);
                if exact {
                    pushes.extend(transfers::outside(main, &processes)?);
                }
                Ok(Work { pushes, ..Work::default() })
            }
            Member::Other => Ok(Work::default()),
        }
    }

    fn feed(&self, main_pid: u32) -> Result<()> {
        let pid =
            i32::try_from(main_pid).ok().and_then(Pid::from_raw).context("no main process")?;
        let socket =
            socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        let sender = UCred { pid, uid: getuid(), gid: getgid() };
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmCredentials(sender));
        let address = SocketAddrUnix::new(self.root.at(paths::NOTIFY))?;
        let message = [IoSlice::new(b"WATCHDOG=1")];
        sendmsg_addr(&socket, &address, &message, &mut control, SendFlags::empty())
            .context("cannot send to systemd's notification socket")?;
        Ok(())
    }
}

fn process(pid: u32) -> Option<Process> {
    Process::new(i32::try_from(pid).ok()?).ok()
}
