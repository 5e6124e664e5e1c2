//! An instance whose files are out of reach: `redis-cli --rdb` takes its memory over the
//! replication protocol.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow, ensure};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::server::Server;
use crate::config::RedisAddress;
use crate::host::process;

/// Where GitLab's own package keeps its programs.
const OMNIBUS: &str = "/opt/gitlab/embedded/bin";

/// A transfer under way.
pub struct Transfer {
    child: Child,
    words: JoinHandle<String>,
}

/// The first of `names` that is installed.
pub fn installed(names: &[impl AsRef<str>]) -> Option<PathBuf> {
    let directories = || [process::search_path(), vec![PathBuf::from(OMNIBUS)]].concat();
    names.iter().find_map(|name| process::find(name.as_ref(), directories()))
}

/// `redis-cli`.
pub fn program() -> Result<PathBuf> {
    installed(&["redis-cli", "valkey-cli"])
        .context("its files cannot be read from here (or CONFIG GET is forbidden), and redis-cli, which could fetch them, is not installed: install it")
}

/// `redis-cli` on its way to the same server, and what has to be there while it is started.
fn client(server: &Server<'_>) -> Result<(Command, Option<OwnedFd>)> {
    let redis = server.redis;
    let mut command = Command::new(program()?);
    let (socket, path) = server.handed_on()?.unzip();
    match &redis.address {
        RedisAddress::Unix(named) => {
            command.arg("-s").arg(path.as_ref().unwrap_or(named));
        }
        RedisAddress::Tcp { host, port, tls } => {
            command.args(["-h", host, "-p", &port.to_string()]);
            if *tls {
                command.args(["--tls", "--sni", host]);
            }
        }
    }
    if let Some(username) = &redis.username {
        command.args(["--user", username]);
    }
    command.env_remove("REDISCLI_AUTH");
    if let Some(password) = &server.password {
        // Not in argv, which everybody can read.
        command.env("REDISCLI_AUTH", password);
    }
    command.stdin(Stdio::null()).kill_on_drop(true);
    Ok((command, socket))
}

/// Whether `redis-cli` comes to the server: asked before it has to.
///
/// # Errors
/// With what it says.
pub async fn reaches(server: &Server<'_>) -> Result<()> {
    let (mut command, socket) = client(server)?;
    let output = command.args(["-e", "PING"]).output().await.context("cannot run redis-cli")?;
    drop(socket);
    let said = process::tail(&[output.stdout, output.stderr].concat());
    ensure!(
        said.ends_with("PONG") || said.contains(super::NO_WRITES),
        "redis-cli, which would fetch its memory, does not reach it: {said}"
    );
    Ok(())
}

impl Transfer {
    /// Starts the transfer to `file`; returns when the server has forked. `redis-cli` itself writes
    /// the file; nothing reads it before [`finish`](Self::finish) says that it is whole.
    pub async fn start(server: &Server<'_>, file: &Path) -> Result<Self> {
        let (mut command, socket) = client(server)?;
        command.arg("--rdb").arg(file);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().context("cannot run redis-cli")?;
        // It has its own by now.
        drop(socket);
        let words = process::drain(child.stderr.take());
        let mut transfer = Self { child, words };
        loop {
            if transfer.child.try_wait()?.is_some_and(|status| !status.success()) {
                return Err(transfer.failure().await);
            }
            if file.metadata().is_ok_and(|metadata| metadata.len() > 0) {
                break;
            }
            if server.info().await?.is_saving() {
                break;
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(transfer)
    }

    /// Waits for the end.
    pub async fn finish(mut self) -> Result<()> {
        let status = self.child.wait().await.context("cannot wait for redis-cli")?;
        if status.success() { Ok(()) } else { Err(self.failure().await) }
    }

    async fn failure(self) -> Error {
        let words = self.words.await.unwrap_or_default();
        anyhow!(
            "redis-cli --rdb failed: {words}\nthe user needs +psync, +sync and +replconf in its ACL"
        )
    }
}
