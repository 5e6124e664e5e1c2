//! The process behind a server's address: asked of the kernel. What the server says of this host is
//! a claim.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

use anyhow::{Context, Result, bail, ensure};
use procfs::net::{TcpNetEntry, TcpState};
use procfs::process::{FDTarget, Process, all_processes};
use rustix::net::sockopt::socket_peercred;
use tokio::net::UnixStream;

use crate::config::RedisAddress;
use crate::host::identity::Account;

/// A process of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Behind {
    /// Its number; 0 if it is root's and cannot be told.
    pub pid: u32,
    /// Whom it runs as.
    pub account: Account,
}

impl Behind {
    /// Whether a process of this number is seen to be the account's. A socket goes on naming who
    /// began to listen, and the number of one that is gone may be anybody's.
    pub fn is_seen(self) -> bool {
        let found = || -> Result<bool> {
            Ok(Process::new(i32::try_from(self.pid)?)?.status()?.euid == self.account.uid)
        };
        found().unwrap_or(false)
    }
}

/// The process that listens at a port of this host.
///
/// # Errors
/// If it is none of this host, or cannot be told.
pub fn listening(address: &RedisAddress) -> Result<Behind> {
    match address {
        RedisAddress::Unix(path) => {
            bail!("the connection to {} tells who listens, and not its name", path.display())
        }
        RedisAddress::Tcp { host, port, .. } => of_port(host, *port),
    }
}

/// unix(7), `SO_PEERCRED`: who called listen(2) for the socket that this is a connection to.
///
/// # Errors
/// If the kernel does not tell.
pub fn of_peer(stream: &UnixStream) -> Result<Behind> {
    let peer = socket_peercred(stream).context("the kernel does not tell who listens")?;
    let pid = u32::try_from(peer.pid.as_raw_nonzero().get()).unwrap_or(0);
    ensure!(pid > 1, "the kernel does not tell which process listens");
    Ok(Behind { pid, account: Account { uid: peer.uid.as_raw(), gid: peer.gid.as_raw() } })
}

/// proc(5), `/proc/net/tcp`: the socket that listens, and the process that has it open.
fn of_port(host: &str, port: u16) -> Result<Behind> {
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
        let its: Vec<u64> = listening
            .iter()
            .filter(|entry| entry.uid == account.uid)
            .map(|entry| entry.inode)
            .collect();
        // What a process has open only its own user may look at.
        if !its.is_empty() && account.act(|| Ok(has(&process, &its)))? {
            return Ok(Behind { pid: u32::try_from(process.pid())?, account });
        }
    }
    // What a process of root's has open is not for a unit with fewer rights; what it says of itself
    // is root's word.
    if listening.iter().all(|entry| entry.uid == 0) {
        return Ok(Behind { pid: 0, account: Account { uid: 0, gid: 0 } });
    }
    bail!("the process that listens at {host} port {port} cannot be told")
}

/// Whether a process has one of these sockets open.
fn has(process: &Process, inodes: &[u64]) -> bool {
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

    /// The number of this process is not that of one of another account's, and a number may be
    /// nobody's.
    #[test]
    fn a_number_that_has_come_to_somebody_else_is_told() {
        let account = Account {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
        };
        assert!(Behind { pid: std::process::id(), account }.is_seen());
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        assert!(!Behind { pid: child.id(), account }.is_seen());
        // Process 1 is root's.
        let other = if account.uid == 0 { Account { uid: 65534, gid: 65534 } } else { account };
        assert!(!Behind { pid: 1, account: other }.is_seen());
    }

    #[tokio::test]
    async fn this_process_is_found_behind_its_own_sockets() {
        let me = Behind {
            pid: std::process::id(),
            account: Account {
                uid: rustix::process::geteuid().as_raw(),
                gid: rustix::process::getegid().as_raw(),
            },
        };
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let _socket = UnixListener::bind(&path).unwrap();
        assert_eq!(of_peer(&UnixStream::connect(&path).await.unwrap()).unwrap(), me);
        assert!(listening(&RedisAddress::Unix(path)).is_err());
        for host in ["127.0.0.1", "0.0.0.0"] {
            let port = TcpListener::bind((host, 0)).unwrap();
            let number = port.local_addr().unwrap().port();
            let address =
                RedisAddress::Tcp { host: "127.0.0.1".to_owned(), port: number, tls: false };
            assert_eq!(listening(&address).unwrap(), me);
            drop(port);
            assert!(listening(&address).is_err());
        }
        assert!(
            listening(&RedisAddress::Tcp { host: "192.0.2.1".to_owned(), port: 1, tls: false })
                .is_err()
        );
    }
}
