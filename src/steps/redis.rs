//! Redis: every instance forks while GitLab is down; what the fork writes is secured while GitLab is up again.

mod rdb;
mod remote;
pub(super) mod save;
pub(super) mod server;

use anyhow::{Context, Result, bail};

use crate::config::{Config, Redis};
use crate::systemd::notify;
use server::Server;

pub use save::save;

/// Checks that every instance can be reached and saved.
pub async fn preflight(config: &Config) -> Result<()> {
    let mut failures = Vec::new();
    for redis in &config.redis {
        notify::status(&format!("checking Redis {}", redis.name));
        if let Err(error) = check(redis).await {
            failures.push(format!("Redis {}: {error:#}", redis.name));
        }
    }
    match failures.is_empty() {
        true => Ok(()),
        false => bail!("{}", failures.join("\n")),
    }
}

async fn check(redis: &Redis) -> Result<()> {
    let server = Server::connect(redis).await?;
    server.text(&["PING"]).await.context("PING failed: check the user and password")?;
    let info = server.info().await?;
    info.number("rdb_changes_since_last_save")?;
    if let Err(error) = info.last_save() {
        // The next one may do better; the run will see.
        tracing::warn!("Redis {}: {error:#}", redis.name);
    }
    if save::local_file(&server).await.is_none() {
        remote::program()?;
    }
    tracing::info!("Redis {} at {}, version {}, can be reached", redis.name, server::place(&redis.address), info.version());
    Ok(())
}
