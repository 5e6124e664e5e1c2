//! Throwaway servers, into which a drill restores dumps.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nix::unistd::User;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::sleep;

use crate::host::beneath::Directory;
use crate::host::confined::{Confinement, Sockets};
use crate::host::process;

/// How long a server may take until it answers: it may have to read a large file first.
const START_TIMEOUT: Duration = Duration::from_secs(600);
/// How long a server may take to end before it is killed. Shorter in the test that waits for it.
const STOP_TIMEOUT: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 10 });
/// Between two looks at a server that is starting or stopping.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// How many bytes at the end of a server's log are read.
const LOG_TAIL: i64 = 16 << 10;
/// The longest path of a socket in bytes, with its NUL: unix(7).
const SOCKET_PATH: usize = 108;

/// A running throwaway server. Dropping this value stops the server.
pub(in crate::stores) struct ScratchServer {
    child: Child,
    signal: Signal,
    name: String,
    /// Opened before the server was started: the server can replace the file of this name.
    log: File,
}

/// How to start a confined program.
pub(in crate::stores) struct Launch<'a> {
    /// The account to run it as; if `None`, that of this process.
    pub user: Option<&'a User>,
    /// The only directory that the program can write.
    pub place: &'a Path,
    /// The signal that ends the program and its children at once.
    pub signal: Signal,
}

impl Launch<'_> {
    /// Returns the command of `program`, confined to the place: it can listen on sockets in the
    /// place, and cannot connect to any.
    pub fn command(&self, program: &Path) -> Command {
        let mut confinement = Confinement::new(self.user, self.place);
        confinement.sockets = Sockets::Listening;
        confinement.signal = self.signal;
        confinement.command(program)
    }
}

impl ScratchServer {
    /// Starts `program` with `arguments`. The server's log is the file `log` in the place.
    pub fn start(launch: &Launch<'_>, program: &Path, arguments: &[String]) -> Result<Self> {
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let log = Directory::open(launch.place)?.log(OsStr::new("log"))?;
        let child = launch
            .command(program)
            .args(arguments)
            .stdout(log.try_clone()?)
            .stderr(log.try_clone()?)
            .spawn();
        let child = child.with_context(|| format!("cannot run {name}"))?;
        Ok(Self { child, signal: launch.signal, name, log })
    }

    /// Calls `ask` until it returns a value, and returns that.
    ///
    /// # Errors
    /// If the server ends before (with the end of its log), or does not answer in time.
    pub async fn wait_for_answer<T>(
        &mut self,
        mut ask: impl AsyncFnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        let started = Instant::now();
        loop {
            let answer = ask().await;
            if let Ok(Some(answer)) = answer {
                return Ok(answer);
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status}: {}", self.name, self.log_tail());
            }
            if started.elapsed() > START_TIMEOUT {
                let error = answer.err().unwrap_or_else(|| anyhow!("{}", self.log_tail()));
                return Err(error).with_context(|| {
                    format!("{} did not answer within {START_TIMEOUT:?}", self.name)
                });
            }
            sleep(POLL_INTERVAL).await;
        }
    }

    fn log_tail(&self) -> String {
        let read = || -> std::io::Result<Vec<u8>> {
            let (mut log, mut bytes) = (&self.log, Vec::new());
            let length = i64::try_from(log.metadata()?.len()).unwrap_or(i64::MAX);
            log.seek(SeekFrom::End(-length.min(LOG_TAIL)))?;
            log.take(LOG_TAIL.unsigned_abs()).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        process::tail(&read().unwrap_or_default())
    }
}

impl Drop for ScratchServer {
    fn drop(&mut self) {
        let started = Instant::now();
        if kill_process(Pid::from_child(&self.child), self.signal).is_ok() {
            while self.child.try_wait().is_ok_and(|status| status.is_none())
                && started.elapsed() < STOP_TIMEOUT
            {
                std::thread::sleep(POLL_INTERVAL);
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Fails if `socket` is too long for the path of a socket.
pub(in crate::stores) fn ensure_short(socket: &Path) -> Result<()> {
    let length = socket.as_os_str().len();
    anyhow::ensure!(
        length < SOCKET_PATH,
        "{} is too long for the path of a socket: choose a shorter directory with --scratch",
        socket.display()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn a_failed_start_reports_the_log_and_a_drop_stops_the_server() {
        let place = tempfile::tempdir().unwrap();
        let launch = Launch { user: None, place: place.path(), signal: Signal::QUIT };
        let shell = |script: &str| ["-c".to_owned(), script.to_owned()];
        let mut dead = ScratchServer::start(
            &launch,
            Path::new("/bin/sh"),
            &shell("echo no such file; exit 3"),
        )
        .unwrap();
        let error = runtime().block_on(dead.wait_for_answer(async || Ok(None::<()>))).unwrap_err();
        assert!(format!("{error:#}").contains("no such file"), "{error:#}");
        // This one ignores the signal.
        let other = tempfile::tempdir().unwrap();
        let launch = Launch { place: other.path(), ..launch };
        let mut alive = ScratchServer::start(
            &launch,
            Path::new("/bin/sh"),
            &shell("trap '' QUIT; echo up; exec sleep 1000"),
        )
        .unwrap();
        let log = other.path().join("log");
        let up = async || Ok(fs::read_to_string(&log)?.starts_with("up").then_some(()));
        runtime().block_on(alive.wait_for_answer(up)).unwrap();
        let pid = alive.child.id();
        drop(alive);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }
}
