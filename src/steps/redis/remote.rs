//! An instance whose files are out of reach: `redis-cli --rdb` takes its memory over the replication protocol.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::server::Server;
use crate::config::RedisAddress;
use crate::process;

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

impl Transfer {
    /// Starts the transfer to `file`; returns when the server has forked.
    pub async fn start(server: &Server<'_>, file: &Path) -> Result<Self> {
        let redis = server.redis;
        let mut command = Command::new(program()?);
        match &redis.address {
            RedisAddress::Unix(path) => {
                command.arg("-s").arg(server.path().as_deref().unwrap_or(path));
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
        command.arg("--rdb").arg(file);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().context("cannot run redis-cli")?;
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
        anyhow!("redis-cli --rdb failed: {words}\nthe user needs +psync, +sync and +replconf in its ACL")
    }
}
