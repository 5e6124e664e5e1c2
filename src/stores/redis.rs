//! Redis: every instance forks while GitLab is down; what the fork writes is secured while GitLab
//! is up again.

mod bounded;
mod drill;
pub(crate) mod files;
pub(crate) mod process;
pub(crate) mod rdb;
pub(crate) mod remote;
mod restore;
pub(crate) mod save;
pub(crate) mod server;
mod store;
mod verify;

use anyhow::{Context, Result, bail};

use crate::config::{Config, Redis};
use crate::finding::Finding;
use crate::host::secret;
use crate::systemd::notify;
use server::Server;

pub use save::save;
pub use store::RedisStore;

/// The part that holds the instances' files.
pub const REDIS: &str = "redis";

/// Whether every instance can be reached and saved; changes nothing.
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

/// One finding for each instance whose last save failed, and that cannot save now either: in the
/// window it would be too late to learn that.
pub async fn trial(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    for redis in &config.redis {
        if let Err(error) = save::tried(redis).await {
            findings.push(Finding::of(
                format!("redis {}", redis.name),
                Err(error.context("it cannot be saved")),
            ));
        }
    }
    findings
}

/// What a server answers that takes no more writes because its last save failed
/// (`stop-writes-on-bgsave-error`).
const NO_WRITES: &str = "MISCONF";

/// Whether its file can be read on this host, with its own rights. None written yet is one.
async fn readable(server: &Server<'_>) -> Result<()> {
    files::Files::of(server).await?.open().map(drop)
}

/// What was seen, and what should be known.
async fn check(redis: &Redis) -> Result<(String, Option<String>)> {
    let server = Server::connect(redis).await?;
    match server.text(&["PING"]).await {
        // A server whose last save failed says no to all that writes, and to this.
        Err(error) if error.code() == Some(NO_WRITES) => {}
        answer => drop(answer.context("PING failed: check the user and password")?),
    }
    let info = server.info().await?;
    info.number("rdb_changes_since_last_save")?;
    info.current()?;
    let replica = info.master().map(|master| {
        format!("it is a replica of {master}: what has not come from there yet is not saved, and a restore needs the master")
    });
    // The next one may do better; the run will see.
    let failed = info.last_save().err().map(|error| format!("{error:#}"));
    let warning =
        [failed, replica].into_iter().flatten().reduce(|one, other| format!("{one}; {other}"));
    match readable(&server).await {
        Err(error) => {
            remote::program()
                .with_context(|| format!("its file cannot be read here: {error:#}"))?;
            remote::reaches(&server).await?;
        }
        Ok(()) if server.knows("BGSAVE").await == Some(false) => {
            bail!(
                "it has no BGSAVE, by which it is saved: the command is renamed (rename-command in its configuration): take that line out"
            )
        }
        Ok(()) => {}
    }
    Ok((format!("version {} at {}", info.version(), server::place(&redis.address)), warning))
}
