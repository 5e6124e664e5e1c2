//! Everything that can be known before GitLab is touched. Tells all findings, not the first.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, anyhow, bail, ensure};
use tokio::time::{Instant, sleep};

use crate::config::{Config, Quiesce};
use crate::finding::{Finding, Verdict, conclude};
use crate::gitlab::freeze;
use crate::gitlab::readiness::{self, Answer, Readiness};
use crate::open;
use crate::paths::{self, RootDirectory};
use crate::repository::patience;
use crate::run::installed;
use crate::runs::{Outcome, Record, paused};
use crate::stores;
use crate::stores::files::mounted;
use crate::systemd::{Manager, ServiceManager};

/// systemd features that the units need: `LoadCredential=`.
pub const SYSTEMD_MINIMUM: u32 = 247;
/// How long GitLab may fail to answer as a run begins, and still be expected to at its end.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(200);
const READINESS: &str = "readiness";

/// Fails with every reason for which a run could not succeed.
pub async fn preflight(config: &Config) -> Result<()> {
    let mut findings = host(config).await;
    for store in stores::all() {
        findings.extend(store.trial(config).await);
    }
    findings.push(Finding::of("repository", repository(config)));
    conclude(&findings)?;
    let silent = findings
        .iter()
        .any(|finding| finding.what == READINESS && finding.verdict == Verdict::Warning);
    let answered = !silent || answers(config).await;
    paused::record_answer(&RootDirectory::host(), answered, &running(config).await?)
}

/// What of GitLab runs.
async fn running(config: &Config) -> Result<Vec<String>> {
    let manager = Manager::connect().await?;
    let mut running = Vec::new();
    for writer in &config.gitlab.writers {
        let state = manager.state(writer.as_str()).await?;
        running.extend(state.active.is_running().then_some(state.name));
    }
    Ok(running)
}

/// Whether GitLab, which was silent once, answers while it runs: only then is its answer waited for
/// when it is back.
async fn answers(config: &Config) -> bool {
    let Some(url) = &config.gitlab.readiness else { return true };
    let started = Instant::now();
    let Ok(readiness) = Readiness::of(url) else { return false };
    while let Err(error) = readiness.ask().await {
        if started.elapsed() > ANSWER_PATIENCE {
            tracing::warn!(
                "{error:#}: GitLab does not answer while it runs, so its answer is not waited for afterwards"
            );
            return false;
        }
        sleep(PAUSE).await;
    }
    true
}

/// Everything but the repository, which a run makes or makes good, and PostgreSQL, which answers
/// its own user only. Changes nothing.
pub async fn host(config: &Config) -> Vec<Finding> {
    let mut findings = writers(config).await;
    if let Some(url) = &config.gitlab.readiness {
        // GitLab may well be down: an admin's own maintenance is no reason for no backup.
        findings.push(match readiness::ask(url).await {
            Ok(()) => Finding::of(READINESS, Ok("GitLab answers".to_owned())),
            Err(error) => Finding::warning(
                READINESS,
                format!("{error:#}: a run goes on, and does not wait for this answer at its end"),
            ),
        });
    }
    for store in stores::all() {
        findings.extend(store.preflight(config).await);
    }
    // A program on a file system whose server is gone keeps whoever looks at it waiting for ever.
    if !mounted::is_among(&findings) {
        findings.extend(commands(config));
    }
    findings.extend(state().err().map(|error| Finding::of("state", Err(error))));
    findings.extend(
        open::ensure_apart(config).err().map(|error| Finding::of("repository", Err(error))),
    );
    findings
}

async fn writers(config: &Config) -> Vec<Finding> {
    let manager = match Manager::connect().await {
        Ok(manager) => manager,
        Err(error) => return vec![Finding::of("systemd", Err(error))],
    };
    let version = async {
        let version = manager.version().await?;
        if version < SYSTEMD_MINIMUM {
            bail!("systemd {version} is too old: {SYSTEMD_MINIMUM} or newer is needed");
        }
        Ok(format!("version {version}"))
    };
    let mut findings =
        vec![Finding::of("systemd", version.await), installed::finding(config).await];
    let mut missing = Vec::new();
    for writer in &config.gitlab.writers {
        match manager.state(writer.as_str()).await {
            // A unit of ours is not for the configuration to correct.
            Ok(state) if state.load == "not-found" && !config.gitlab.is_proxy(writer) => {
                missing.push(anyhow!("{writer} does not exist: correct [gitlab] writers"))
            }
            Ok(_) => {}
            Err(error) => missing.push(error),
        }
    }
    if config.gitlab.quiesce == Quiesce::Freeze {
        missing.extend(freeze::ensure_possible(&RootDirectory::host()).err());
    }
    let seen = format!("{} units that are stopped for a backup", config.gitlab.writers.len());
    findings.extend(Finding::each_or("gitlab", missing, seen));
    findings
}

/// Whether the configured programs exist.
fn commands(config: &Config) -> Vec<Finding> {
    let own = config.files.command.iter().map(|command| &command[0]);
    let programs: Vec<&String> =
        own.chain(config.steps.iter().map(|step| &step.command[0])).collect();
    if programs.is_empty() {
        return Vec::new();
    }
    let gone = programs
        .iter()
        .filter(|program| !Path::new(program).is_file())
        .map(|program| anyhow!("{program} is not there"))
        .collect();
    Finding::each_or("own commands", gone, format!("{} programs", programs.len()))
}

/// Where the units keep what outlives a run: systemd makes it, and takes a link for none.
fn state() -> Result<()> {
    let path = Path::new(paths::STATE);
    let linked = path.symlink_metadata().is_ok_and(|metadata| !metadata.is_dir());
    ensure!(
        !linked,
        "{} is no directory, and no unit can be started like this: where it is to be on another disk, mount that there, or bind a directory of it",
        path.display()
    );
    Ok(())
}

fn repository(config: &Config) -> Result<String> {
    let engine = open::in_run(config)?;
    let location = &config.repository.location;
    open::exists(config, &*engine)?;
    // Opening costs half a second of key derivation: `init` opens what is there already.
    if engine.init()? {
        tracing::info!(location, "made the repository");
        return Ok(format!("made at {location}"));
    }
    // Here and not in the window. A prune that begins later sees this run.
    engine.wait_for_lock(patience::LONG)?;
    if Record::all(&RootDirectory::host())?
        .iter()
        .find(|record| record.finished.is_some())
        .is_some_and(|last| last.outcome != Outcome::Complete)
    {
        tracing::info!("the last run failed: making good what it may have left in the repository");
        engine.recover()?;
    }
    Ok(format!("opens at {location}"))
}
