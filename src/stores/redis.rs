//! The Redis store. Every instance forks in the window; the forks write their RDB files, and the
//! files are copied, while GitLab is up again.

mod bounded;
pub(crate) mod connection;
mod drill;
mod keys;
pub(crate) mod process;
pub(crate) mod rdb;
pub(crate) mod remote;
mod restore;
pub(crate) mod save;
pub(crate) mod server_files;
mod store;
mod verify;

use anyhow::{Context, Result, bail};

use crate::config::{Config, Redis};
use crate::finding::Finding;
use crate::host::clock::Clock;
use crate::host::secret;
use crate::systemd::notify;
use connection::Connection;

pub use save::save;
pub use store::RedisStore;

/// The name of the part that holds the instances' RDB files.
pub const REDIS: &str = "redis";

/// Checks that every instance can be reached and saved. Changes nothing.
pub async fn preflight(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    for redis in &config.redis {
        let what = format!("redis {}", redis.name);
        notify::status(&format!("checking Redis {}", redis.name));
        if redis.password.as_ref().is_some_and(secret::is_out_of_reach) {
            findings.push(Finding::warning(what, secret::OUT_OF_REACH));
            continue;
        }
        match check(redis).await {
            Ok((seen, warning)) => {
                findings.extend(warning.map(|warning| Finding::warning(&what, warning)));
                findings.push(Finding::of(what, Ok(seen)));
            }
            Err(error) => findings.push(Finding::of(what, Err(error))),
        }
    }
    findings
}

/// Tries a save of every instance whose last save failed, before GitLab is stopped. An error for
/// each whose save fails again.
pub async fn trial(config: &Config, clock: &dyn Clock) -> Vec<Finding> {
    let mut findings = Vec::new();
    for redis in &config.redis {
        if let Err(error) = save::retry_failed(redis, clock).await {
            findings.push(Finding::of(
                format!("redis {}", redis.name),
                Err(error.context("it cannot be saved")),
            ));
        }
    }
    findings
}

/// The error code of a server that refuses writes because its last save failed
/// (`stop-writes-on-bgsave-error`).
const NO_WRITES: &str = "MISCONF";

/// Fails if the server's RDB file cannot be read on this host with the server's own rights. A file
/// that does not exist yet is fine.
async fn ensure_readable(server: &Connection<'_>) -> Result<()> {
    server_files::ServerFiles::find(server).await?.open().map(drop)
}

/// Checks one instance. Returns a line that describes it, and a warning if there is one.
async fn check(redis: &Redis) -> Result<(String, Option<String>)> {
    let server = Connection::connect(redis).await?;
    match server.query_text(&["PING"]).await {
        // Such a server refuses PING as well as writes, and is reachable.
        Err(error) if error.code() == Some(NO_WRITES) => {}
        answer => drop(answer.context("PING failed: check the user and password")?),
    }
    let info = server.info().await?;
    info.number("rdb_changes_since_last_save")?;
    info.ensure_current()?;
    let replica = info.master().map(|master| {
        format!(
            "it is a replica of {master}: data not yet replicated from there is not in the \
             backup, and a restore needs the master"
        )
    });
    // Only a warning: the next save may succeed, and a run tries it before it stops GitLab.
    let failed = info.ensure_last_save_succeeded().err().map(|error| format!("{error:#}"));
    let warning =
        [failed, replica].into_iter().flatten().reduce(|one, other| format!("{one}; {other}"));
    match ensure_readable(&server).await {
        Err(error) => {
            remote::redis_cli()
                .with_context(|| format!("its file cannot be read here: {error:#}"))?;
            remote::ensure_reachable(&server).await?;
        }
        Ok(()) if server.has_command("BGSAVE").await == Some(false) => {
            bail!(
                "it has no BGSAVE command, which a backup needs: remove 'rename-command BGSAVE' \
                 from its configuration"
            )
        }
        Ok(()) => {}
    }
    Ok((
        format!("version {} at {}", info.version(), connection::describe_address(&redis.address)),
        warning,
    ))
}
