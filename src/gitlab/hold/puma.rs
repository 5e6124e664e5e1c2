//! Puma, seen from outside: its requests are the connections that its workers have accepted.
//!
//! With `queue_requests false`, GitLab's setting, Puma closes each connection after its answer, so
//! that each connection is a request. Connections in an epoll set are those that wait for a client
//! (with `queue_requests true`), or WebSockets, which Rails took over from Puma.

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use procfs::net::{TcpState, UnixNetEntry, UnixState};
use procfs::process::{FDTarget, Process};

use crate::host::own;

/// The title of Puma's workers.
const WORKER: &str = "puma: cluster worker";
/// SOCK_STREAM, socket(2).
const STREAM: u16 = 1;

/// Whether the process `main` is a Puma with workers. `group` has its children.
pub(super) fn is_cluster(main: i32, group: &[i32]) -> bool {
    group.iter().filter_map(|pid| Process::new(*pid).ok()).any(|process| {
        process.stat().is_ok_and(|stat| stat.ppid == main)
            && process
                .cmdline()
                .is_ok_and(|words| words.first().is_some_and(|title| title.starts_with(WORKER)))
    })
}

/// The requests in the processes of `group`, whose listeners belong to the process `main`: the
/// inodes of their connections.
pub(super) fn requests(main: i32, group: &[i32]) -> Result<BTreeSet<u64>> {
    let process = Process::new(main).context("Puma has no main process")?;
    let connections = connections(&process).context("cannot see the sockets of Puma")?;
    Ok(group.iter().flat_map(|pid| in_progress(*pid, &connections)).collect())
}

/// The connections to the listeners of a process.
fn connections(process: &Process) -> Result<HashSet<u64>> {
    let sockets = process.fd()?.flatten().filter_map(|descriptor| match descriptor.target {
        FDTarget::Socket(inode) => Some(inode),
        _ => None,
    });
    let own: HashSet<u64> = sockets.collect();
    let unix = process.unix()?;
    // /proc/net/unix does not say which sockets listen: those with a name and without a peer.
    let listens =
        |entry: &UnixNetEntry| entry.state == UnixState::UNCONNECTED && entry.socket_type == STREAM;
    let paths: HashSet<&PathBuf> = unix
        .iter()
        .filter(|entry| own.contains(&entry.inode) && listens(entry))
        .filter_map(|entry| entry.path.as_ref())
        .collect();
    let mut found: HashSet<u64> = unix
        .iter()
        .filter(|entry| !listens(entry))
        .filter(|entry| entry.path.as_ref().is_some_and(|path| paths.contains(path)))
        .map(|entry| entry.inode)
        .collect();
    let tcp: Vec<_> =
        process.tcp()?.into_iter().chain(process.tcp6().unwrap_or_default()).collect();
    let ports: HashSet<u16> = tcp
        .iter()
        .filter(|entry| own.contains(&entry.inode) && entry.state == TcpState::Listen)
        .map(|entry| entry.local_address.port())
        .collect();
    ensure!(!paths.is_empty() || !ports.is_empty(), "it listens nowhere");
    found.extend(
        tcp.iter()
            .filter(|entry| entry.state != TcpState::Listen)
            .filter(|entry| ports.contains(&entry.local_address.port()))
            .map(|entry| entry.inode),
    );
    Ok(found)
}

/// The connections of a process that are in no epoll set. None if it has ended.
fn in_progress(pid: i32, connections: &HashSet<u64>) -> Vec<u64> {
    let Ok(descriptors) = Process::new(pid).and_then(|process| process.fd()) else {
        return Vec::new();
    };
    let (mut waiting, mut found) = (HashSet::new(), Vec::new());
    for descriptor in descriptors.flatten() {
        match descriptor.target {
            FDTarget::Socket(inode) if connections.contains(&inode) => {
                found.push((descriptor.fd, inode));
            }
            FDTarget::AnonInode(kind) if kind == "[eventpoll]" => {
                waiting.extend(polled(pid, descriptor.fd));
            }
            _ => {}
        }
    }
    found.into_iter().filter(|(fd, _)| !waiting.contains(fd)).map(|(_, inode)| inode).collect()
}

/// The descriptors in an epoll set, proc_pid_fdinfo(5) `tfd:`.
fn polled(pid: i32, epoll: i32) -> Vec<i32> {
    let text = own::read_text(format!("/proc/{pid}/fdinfo/{epoll}")).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.strip_prefix("tfd:")?.split_whitespace().next()?.parse().ok())
        .collect()
}
