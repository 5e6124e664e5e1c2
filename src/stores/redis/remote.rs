//! Saves an instance whose files cannot be read on this host: `redis-cli --rdb` fetches its data
//! over the replication protocol.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow, ensure};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::connection::Connection;
use crate::config::RedisAddress;
use crate::host::process;

/// The programs of GitLab's Omnibus package.
const OMNIBUS: &str = "/opt/gitlab/embedded/bin";

/// A running transfer.
pub struct Transfer {
    child: Child,
    words: JoinHandle<String>,
}

/// The first of the programs `names` that is installed.
pub fn installed(names: &[impl AsRef<str>]) -> Option<PathBuf> {
    let directories = || [process::search_path(), vec![PathBuf::from(OMNIBUS)]].concat();
    names.iter().find_map(|name| process::find(name.as_ref(), directories()))
}

/// The path of `redis-cli`, or of Valkey's equivalent.
pub fn redis_cli() -> Result<PathBuf> {
    installed(&["redis-cli", "valkey-cli"]).context(
        "its files cannot be read from here (or CONFIG GET is forbidden), and redis-cli, which \
         could fetch them, is not installed: install it",
    )
}

/// A `redis-cli` command that connects to the same server. The descriptor, if there is one, must
/// stay open until the command has been started.
fn client(server: &Connection<'_>) -> Result<(Command, Option<OwnedFd>)> {
    let redis = server.redis;
    let mut command = Command::new(redis_cli()?);
    let (socket, path) = server.share_socket()?.unzip();
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
        // In the environment, because every account can read the arguments.
        command.env("REDISCLI_AUTH", password);
    }
    command.stdin(Stdio::null()).kill_on_drop(true);
    Ok((command, socket))
}

/// Checks that `redis-cli` can connect to the server.
///
/// # Errors
/// If it cannot, with its output.
pub async fn ensure_reachable(server: &Connection<'_>) -> Result<()> {
    let (mut command, socket) = client(server)?;
    let output = command.args(["-e", "PING"]).output().await.context("cannot run redis-cli")?;
    drop(socket);
    let output = process::tail(&[output.stdout, output.stderr].concat());
    ensure!(
        output.ends_with("PONG") || output.contains(super::NO_WRITES),
        "redis-cli, which would fetch its data, cannot connect: {output}"
    );
    Ok(())
}

impl Transfer {
    /// Starts a transfer to `file`. Returns as soon as the server has forked. `redis-cli` itself
    /// writes the file; nothing reads it before [`finish`](Self::finish) says that it is complete.
    pub async fn start(server: &Connection<'_>, file: &Path) -> Result<Self> {
        let (mut command, socket) = client(server)?;
        command.arg("--rdb").arg(file);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().context("cannot run redis-cli")?;
        // The child has inherited its own descriptor.
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

    /// Waits until the transfer has ended.
    pub async fn finish(mut self) -> Result<()> {
        let status = self.child.wait().await.context("cannot wait for redis-cli")?;
        if status.success() { Ok(()) } else { Err(self.failure().await) }
    }

    async fn failure(self) -> Error {
        let words = self.words.await.unwrap_or_default();
        anyhow!(
            "redis-cli --rdb failed: {words}\nthe user needs +psync, +sync and +replconf in its \
             ACL"
        )
    }
}
