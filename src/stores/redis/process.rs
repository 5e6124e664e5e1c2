//! Finds the process that listens at a server's address, by asking the kernel. What the server
//! itself says about its process is not trusted.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

use anyhow::{Context, Result, bail, ensure};
use procfs::net::{TcpNetEntry, TcpState};
use procfs::process::{FDTarget, Process, all_processes};
use rustix::net::sockopt::socket_peercred;
use tokio::net::UnixStream;

use crate::config::RedisAddress;
use crate::host::identity::Account;

/// The process of a server on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerProcess {
    /// Its PID; 0 if it runs as root and the PID cannot be found.
    pub pid: u32,
    /// The account that it runs as.
    pub account: Account,
}

impl ServerProcess {
    /// Whether a process with this PID exists and runs as the account. A socket keeps the PID of
    /// the process that called listen(2), which may have ended, and the kernel reuses PIDs.
    pub fn is_alive(self) -> bool {
        let matches = || -> Result<bool> {
            Ok(Process::new(i32::try_from(self.pid)?)?.status()?.euid == self.account.uid)
        };
        matches().unwrap_or(false)
    }
}

/// Finds the process that listens at a TCP port of this host.
///
/// # Errors
/// If the address is on another host, or is a socket, or the process cannot be found.
pub fn find_listener(address: &RedisAddress) -> Result<ServerProcess> {
    match address {
        RedisAddress::Unix(path) => {
            bail!("only a connection shows which process listens at {}", path.display())
        }
        RedisAddress::Tcp { host, port, .. } => find_port_listener(host, *port),
    }
}

/// The process that called listen(2) on the socket at the other end of `stream`: unix(7),
/// `SO_PEERCRED`.
///
/// # Errors
/// If the kernel does not know it.
pub fn peer(stream: &UnixStream) -> Result<ServerProcess> {
    let peer = socket_peercred(stream).context("the kernel does not tell who listens")?;
    let pid = u32::try_from(peer.pid.as_raw_nonzero().get()).unwrap_or(0);
    ensure!(pid > 1, "the kernel does not tell which process listens");
    Ok(ServerProcess { pid, account: Account { uid: peer.uid.as_raw(), gid: peer.gid.as_raw() } })
}

/// Finds the socket that listens at the port, by proc(5), `/proc/net/tcp`, and the process that has
/// it open.
fn find_port_listener(host: &str, port: u16) -> Result<ServerProcess> {
    let addresses: Vec<IpAddr> = (host, port)
        .to_socket_addrs()
        .with_context(|| format!("cannot find {host}"))?
        .map(|address| address.ip())
        .filter(IpAddr::is_loopback)
        .collect();
    ensure!(!addresses.is_empty(), "{host} is another machine");
    let entries = procfs::net::tcp().context("cannot read /proc/net/tcp")?;
    let entries = entries.into_iter().chain(procfs::net::tcp6().unwrap_or_default());
    let listens = |entry: &TcpNetEntry| {
        entry.state == TcpState::Listen && serves(entry.local_address, &addresses, port)
    };
    let listening: Vec<TcpNetEntry> = entries.filter(listens).collect();
    ensure!(!listening.is_empty(), "nothing on this host listens at {host} port {port}");
    for process in all_processes().context("cannot list the processes of this host")?.flatten() {
        let Ok(status) = process.status() else { continue };
        let account = Account { uid: status.euid, gid: status.egid };
        let inodes: Vec<u64> = listening
            .iter()
            .filter(|entry| entry.uid == account.uid)
            .map(|entry| entry.inode)
            .collect();
        // Only the account of a process may list its open files.
        if !inodes.is_empty() && account.act(|| Ok(has_open(&process, &inodes)))? {
            return Ok(ServerProcess { pid: u32::try_from(process.pid())?, account });
        }
    }
    // A unit without all of root's capabilities cannot list the open files of a root process. The
    // PID that a root process reports can be trusted, so the caller asks the server instead.
    if listening.iter().all(|entry| entry.uid == 0) {
        return Ok(ServerProcess { pid: 0, account: Account { uid: 0, gid: 0 } });
    }
    bail!("cannot find the process that listens at {host} port {port}")
}

/// Whether a process has one of these sockets open.
fn has_open(process: &Process, inodes: &[u64]) -> bool {
    let mut open = process.fd().into_iter().flatten().flatten();
    open.any(|open| matches!(open.target, FDTarget::Socket(inode) if inodes.contains(&inode)))
}

/// Whether a socket that is bound to `local` answers at one of `addresses`.
fn serves(local: SocketAddr, addresses: &[IpAddr], port: u16) -> bool {
    local.port() == port && (local.ip().is_unspecified() || addresses.contains(&local.ip()))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_pid_that_is_free_or_of_another_account_is_not_alive() {
        let account = Account {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
        };
        assert!(ServerProcess { pid: std::process::id(), account }.is_alive());
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        assert!(!ServerProcess { pid: child.id(), account }.is_alive());
        // Process 1 is root's.
        let other = if account.uid == 0 { Account { uid: 65534, gid: 65534 } } else { account };
        assert!(!ServerProcess { pid: 1, account: other }.is_alive());
    }

    #[tokio::test]
    async fn this_process_is_found_behind_its_own_sockets() {
        let me = ServerProcess {
            pid: std::process::id(),
            account: Account {
                uid: rustix::process::geteuid().as_raw(),
                gid: rustix::process::getegid().as_raw(),
            },
        };
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let _socket = UnixListener::bind(&path).unwrap();
        assert_eq!(peer(&UnixStream::connect(&path).await.unwrap()).unwrap(), me);
        assert!(find_listener(&RedisAddress::Unix(path)).is_err());
        for host in ["127.0.0.1", "0.0.0.0"] {
            let port = TcpListener::bind((host, 0)).unwrap();
            let number = port.local_addr().unwrap().port();
            let address =
                RedisAddress::Tcp { host: "127.0.0.1".to_owned(), port: number, tls: false };
            assert_eq!(find_listener(&address).unwrap(), me);
            drop(port);
            assert!(find_listener(&address).is_err());
        }
        assert!(
            find_listener(&RedisAddress::Tcp { host: "192.0.2.1".to_owned(), port: 1, tls: false })
                .is_err()
        );
    }
}
