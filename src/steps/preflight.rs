//! Everything that can be known before GitLab is touched. Tells all findings, not the first.

use std::path::Path;

use anyhow::{Result, anyhow, bail};

use crate::config::Config;
use crate::runs::{Outcome, Record};
use crate::systemd::Manager;

use super::{open, readiness, redis};

/// systemd features that the units need: `LoadCredential=`.
pub const SYSTEMD_MINIMUM: u32 = 247;

/// Fails with every reason for which a run could not succeed.
pub async fn preflight(config: &Config) -> Result<()> {
    let mut findings = Vec::new();
    let mut find = |what: &str, result: Result<()>| {
        if let Err(error) = result {
            findings.push(format!("{what}: {error:#}"));
        }
    };
    find("gitlab", writers(config).await);
    if let Some(url) = &config.gitlab.readiness {
        // GitLab may well be down: an admin's own maintenance is no reason for no backup.
        if let Err(error) = readiness::ask(url).await {
            tracing::warn!("{error:#}");
        }
    }
    find("files", files(config));
    find("redis", redis::preflight(config).await);
    find("repository", repository(config));
    if findings.is_empty() {
        return Ok(());
    }
    bail!("{}", findings.join("\n"));
}

async fn writers(config: &Config) -> Result<()> {
    let manager = Manager::connect().await?;
    let version = manager.version().await?;
    if version < SYSTEMD_MINIMUM {
        bail!("systemd {version} is too old: {SYSTEMD_MINIMUM} or newer is needed");
    }
    for writer in &config.gitlab.writers {
        if manager.state(writer.as_str()).await?.load == "not-found" {
            bail!("{writer} does not exist: correct [gitlab] writers");
        }
    }
    Ok(())
}

fn files(config: &Config) -> Result<()> {
    for path in &config.files.paths {
        let metadata = path.symlink_metadata().map_err(|error| anyhow!("{}: {error}: correct [files] paths", path.display()))?;
        if metadata.is_symlink() {
            bail!(
                "{} is a symbolic link, and a backup of it would hold nothing else: name what it points to in [files] paths",
                path.display()
            );
        }
    }
    let own = config.files.command.iter().map(|command| &command[0]);
    for program in own.chain(config.steps.iter().map(|step| &step.command[0])) {
        if !Path::new(program).is_file() {
            bail!("{program} is not there");
        }
    }
    Ok(())
}

fn repository(config: &Config) -> Result<()> {
    let engine = open::in_run(config)?;
    // Opening costs half a second of key derivation: `init` opens what is there already.
    if engine.init()? {
        tracing::info!(location = config.repository.location, "made the repository");
        return Ok(());
    }
    if Record::all()?.iter().find(|record| record.finished.is_some()).is_some_and(|last| last.outcome != Outcome::Complete) {
        tracing::info!("the last run failed: making good what it may have left in the repository");
        engine.recover()?;
    }
    Ok(())
}
