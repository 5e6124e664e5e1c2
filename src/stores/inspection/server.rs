//! A server that lives as long as the value that stands for it.

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
const START_PATIENCE: Duration = Duration::from_secs(600);
/// How long it may take to end before it is killed.
const END_PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(50);
/// Bytes of a log that are worth reading.
const LAST: i64 = 16 << 10;
/// Bytes of a socket's path that the kernel takes, unix(7), with its NUL.
const SOCKET_PATH: usize = 108;

/// A running server. Its end is the server's.
pub(in crate::stores) struct Server {
    child: Child,
    signal: Signal,
    name: String,
    /// Open since before the server was: what lies under its name is the server's to say.
    log: File,
}

/// How a program is started: as whom, where, and which signal ends it and its children at once.
pub(in crate::stores) struct Launch<'a> {
    pub user: Option<&'a User>,
    pub place: &'a Path,
    pub signal: Signal,
}

impl Launch<'_> {
    /// `program`, confined to the place: it can be called by sockets in it, and calls nobody.
    pub fn command(&self, program: &Path) -> Command {
        let mut confinement = Confinement::new(self.user, self.place);
        confinement.sockets = Sockets::Listening;
        confinement.signal = self.signal;
        confinement.command(program)
    }
}

impl Server {
    /// Starts `program` with `words`; its log is in the place.
    pub fn start(manner: &Launch<'_>, program: &Path, words: &[String]) -> Result<Self> {
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // What is there already is not ours.
        let log = Directory::open(manner.place)?.log(OsStr::new("log"))?;
        let child = manner
            .command(program)
            .args(words)
            .stdout(log.try_clone()?)
            .stderr(log.try_clone()?)
            .spawn();
        let child = child.with_context(|| format!("cannot run {name}"))?;
        Ok(Self { child, signal: manner.signal, name, log })
    }

    /// Returns what `ask` does as soon as that is something. Fails if the server ends before, with
    /// its last words, or never answers.
    pub async fn answering<T>(
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
                bail!("{} ended with {status}: {}", self.name, self.last_words());
            }
            if started.elapsed() > START_PATIENCE {
                let error = answer.err().unwrap_or_else(|| anyhow!("{}", self.last_words()));
                return Err(error).with_context(|| {
                    format!("{} did not answer within {START_PATIENCE:?}", self.name)
                });
            }
            sleep(PAUSE).await;
        }
    }

    fn last_words(&self) -> String {
        let read = || -> std::io::Result<Vec<u8>> {
            let (mut log, mut said) = (&self.log, Vec::new());
            let length = i64::try_from(log.metadata()?.len()).unwrap_or(i64::MAX);
            log.seek(SeekFrom::End(-length.min(LAST)))?;
            log.take(LAST.unsigned_abs()).read_to_end(&mut said)?;
            Ok(said)
        };
        process::tail(&read().unwrap_or_default())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let started = Instant::now();
        if kill_process(Pid::from_child(&self.child), self.signal).is_ok() {
            while self.child.try_wait().is_ok_and(|status| status.is_none())
                && started.elapsed() < END_PATIENCE
            {
                std::thread::sleep(PAUSE);
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Fails if `socket` cannot be one for its length.
pub(in crate::stores) fn ensure_short(socket: &Path) -> Result<()> {
    let length = socket.as_os_str().len();
    anyhow::ensure!(
        length < SOCKET_PATH,
        "{} is too long for a socket: --scratch names a shorter place",
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
    fn a_server_that_ends_is_told_with_its_last_words_and_one_that_lives_ends_with_its_value() {
        let place = tempfile::tempdir().unwrap();
        let manner = Launch { user: None, place: place.path(), signal: Signal::QUIT };
        let words = |script: &str| ["-c".to_owned(), script.to_owned()];
        let mut dead =
            Server::start(&manner, Path::new("/bin/sh"), &words("echo no such file; exit 3"))
                .unwrap();
        let error = runtime().block_on(dead.answering(async || Ok(None::<()>))).unwrap_err();
        assert!(format!("{error:#}").contains("no such file"), "{error:#}");
        // One that does not listen to the signal.
        let other = tempfile::tempdir().unwrap();
        let manner = Launch { place: other.path(), ..manner };
        let mut alive = Server::start(
            &manner,
            Path::new("/bin/sh"),
            &words("trap '' QUIT; echo up; exec sleep 1000"),
        )
        .unwrap();
        let log = other.path().join("log");
        let up = async || Ok(fs::read_to_string(&log)?.starts_with("up").then_some(()));
        runtime().block_on(alive.answering(up)).unwrap();
        let pid = alive.child.id();
        drop(alive);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }
}
