//! What a hold needs of the kernel. A trait, so that tests can replace it.

use std::collections::BTreeSet;
use std::io::IoSlice;
use std::mem::MaybeUninit;

use anyhow::{Context, Result};
use procfs::process::Process;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, UCred, sendmsg_addr, socket_with,
};
use rustix::process::{Pid, Signal, getgid, getuid, pidfd_send_signal};

use super::puma;
use crate::gitlab::transfers;
use crate::paths::{self, RootDirectory};
use crate::runs::held::Listener;
use crate::systemd::cgroup;

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

impl Kernel for Linux<'_> {
    fn ensure_freezes(&self) -> Result<()> {
        cgroup::ensure_freezes(self.root, "hold")
    }

    fn freeze(&self, group: &str) -> Result<()> {
        cgroup::freeze(self.root, group)
    }

    fn thaw(&self, group: &str) -> Result<()> {
        cgroup::thaw(self.root, group)
    }

    fn is_frozen(&self, group: &str) -> bool {
        cgroup::is_frozen(self.root, group)
    }

    fn started(&self, pid: u32) -> Option<u64> {
        Some(process(pid)?.stat().ok()?.starttime)
    }

    fn name(&self, pid: u32) -> Option<String> {
        Some(process(pid)?.stat().ok()?.comm)
    }

    fn stop(&self, listener: &Listener, stop: bool) -> Result<()> {
        let signal = if stop { Signal::STOP } else { Signal::CONT };
        let Ok(pid) = i32::try_from(listener.pid) else { return Ok(()) };
        let is_same = || self.started(listener.pid) == Some(listener.started);
        let Some(open) = transfers::open(pid, is_same) else { return Ok(()) };
        match pidfd_send_signal(&open, signal) {
            Err(error) if error != rustix::io::Errno::SRCH => Err(error)
                .with_context(|| format!("cannot signal the listener of {}", listener.unit)),
            _ => Ok(()),
        }
    }

    fn is_puma(&self, group: &str, main_pid: u32) -> bool {
        i32::try_from(main_pid)
            .is_ok_and(|main| puma::is_cluster(main, &cgroup::processes(self.root, group)))
    }

    fn work(&self, member: Member, group: &str, main_pid: u32, exact: bool) -> Result<Work> {
        let main = i32::try_from(main_pid).unwrap_or_default();
        match member {
            Member::Puma => {
                let requests = puma::requests(main, &cgroup::processes(self.root, group))?;
                Ok(Work { requests, ..Work::default() })
            }
            Member::Gitaly => {
                let processes = cgroup::processes(self.root, group);
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
