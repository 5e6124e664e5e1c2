//! Connects to a server by its Unix socket, unix(7), with a time limit, and in a way that other
//! users cannot redirect.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep};

use super::beneath;
use super::identity::Account;

const PAUSE: Duration = Duration::from_millis(50);

/// Connects to the socket at `path`, with the rights of `account` if there is one. If the queue of
/// the server is full, tries again for `patience`: the kernel has no time limit.
///
/// # Errors
/// If no server listens there, or it does not accept the connection in time.
pub async fn connect(
    path: &Path,
    account: Option<Account>,
    patience: Duration,
) -> Result<UnixStream> {
    let deadline = Instant::now() + patience;
    loop {
        let once = || {
            begin(path).with_context(|| {
                format!("cannot connect to {}: is the server running?", path.display())
            })
        };
        let begun = match account {
            Some(account) => account.act(once)?,
            None => once()?,
        };
        if let Some(stream) = begun {
            return UnixStream::from_std(stream).context("cannot wait for a socket");
        }
        if Instant::now() >= deadline {
            bail!("no process accepts connections at {}, for {patience:?}", path.display());
        }
        sleep(PAUSE).await;
    }
}

/// Connects to the socket at `path`, through no link that other users could have created. Also
/// returns the socket itself: [`by_number`] and [`handed_on`] lead to the same one even if its name
/// changes.
///
/// # Errors
/// As [`connect`], and if there is no socket.
pub async fn connect_to_named(path: &Path, patience: Duration) -> Result<(UnixStream, OwnedFd)> {
    let socket = beneath::socket(path)?;
    let stream = connect(&by_number(&socket), None, patience)
        .await
        .with_context(|| format!("{} takes no connection", path.display()))?;
    Ok((stream, socket))
}

/// A path to an open socket, for this process.
pub fn by_number(socket: &OwnedFd) -> PathBuf {
    format!("/proc/{}/fd/{}", std::process::id(), socket.as_raw_fd()).into()
}

/// A descriptor of the same socket that child processes inherit, and its path for them. They cannot
/// use [`by_number`]: after this process has acted as another account, the kernel denies access to
/// its descriptors.
///
/// # Errors
/// If there are too many open files.
pub fn handed_on(socket: &OwnedFd) -> io::Result<(OwnedFd, PathBuf)> {
    let handed = rustix::io::dup(socket)?;
    let path = format!("/proc/self/fd/{}", handed.as_raw_fd()).into();
    Ok((handed, path))
}

/// Connects once; none if the queue of the server is full.
fn begin(path: &Path) -> io::Result<Option<StdUnixStream>> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&socket, &SocketAddrUnix::new(path)?) {
        Ok(()) => Ok(Some(socket.into())),
        Err(Errno::AGAIN) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[tokio::test]
    async fn a_full_queue_times_out_and_a_link_is_not_followed() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("socket");
        let socket = UnixListener::bind(&path).unwrap();
        rustix::net::listen(&socket, 0).unwrap();
        let (first, held) = connect_to_named(&path, Duration::from_secs(5)).await.unwrap();
        assert_eq!(first.peer_cred().unwrap().pid(), i32::try_from(std::process::id()).ok());
        let error = connect(&path, None, Duration::from_millis(200)).await.unwrap_err();
        assert!(format!("{error:#}").contains("no process accepts connections"), "{error:#}");
        // A new socket with the same name is not the one that was opened.
        std::fs::rename(&path, place.path().join("elsewhere")).unwrap();
        drop(UnixListener::bind(&path).unwrap());
        rustix::net::listen(&socket, 5).unwrap();
        assert!(connect(&by_number(&held), None, Duration::from_secs(5)).await.is_ok());
        symlink(&path, place.path().join("link")).unwrap();
        assert!(
            connect_to_named(&place.path().join("link"), Duration::from_secs(1)).await.is_err()
        );
        std::fs::write(place.path().join("file"), "").unwrap();
        assert!(
            connect_to_named(&place.path().join("file"), Duration::from_secs(1)).await.is_err()
        );
    }
}
