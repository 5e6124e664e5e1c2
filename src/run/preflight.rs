//! Checks everything that can be checked before GitLab is stopped. Reports all findings, not only
//! the first.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, anyhow, bail, ensure};
use tokio::time::{Instant, sleep};

use crate::config::{Config, Quiesce};
use crate::finding::{Finding, Verdict, conclude};
use crate::gitlab::hold::{self, Linux};
use crate::gitlab::readiness::{self, Answer, Readiness};
use crate::machine::Base;
use crate::open;
use crate::paths::{self, RootDirectory};
use crate::repository::patience;
use crate::run::installed;
use crate::runs::held::HoldAccount;
use crate::runs::{Outcome, Record, paused};
use crate::stores;
use crate::stores::files::mounted;
use crate::systemd::{ServiceManager, cgroup};

/// The oldest version of systemd that has the features that the units need: `LoadCredential=`.
pub const SYSTEMD_MINIMUM: u32 = 247;
/// How long GitLab has to answer at the start of a run. If it does not, the end of the run does not
/// wait for its answer.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);
/// The poll interval.
const PAUSE: Duration = Duration::from_millis(200);
/// The subject of the finding on GitLab's answer.
const READINESS: &str = "readiness";

/// Checks the host, tries what only a try can show, and creates or repairs the repository. Records
/// whether GitLab answers, for the end of the run, and whether it can be held.
///
/// # Errors
/// If a run could not succeed, with every reason.
pub async fn preflight<M: ServiceManager>(
    config: &Config,
    base: Base<'_>,
    connect: impl AsyncFn() -> Result<M>,
) -> Result<()> {
    let mut findings = host(config, base.root, &connect).await;
    for store in stores::all() {
        findings.extend(store.trial(config, base.clock).await);
    }
    findings.push(Finding::of("repository", prepare_repository(config, base)));
    conclude(&findings)?;
    let unanswered = findings
        .iter()
        .any(|finding| finding.what == READINESS && finding.verdict == Verdict::Warning);
    let answered = !unanswered || wait_for_answer(config).await;
    let manager = connect().await?;
    let kernel = Linux { root: base.root };
    let obstacle = hold::obstacle(config, &manager, &kernel).await;
    HoldAccount { obstacle, ..HoldAccount::default() }.save(base.root)?;
    let running = running_writers(config, &manager).await?;
    paused::record_answer(base.root, answered, &running)
}

/// The writers that are running.
async fn running_writers(config: &Config, manager: &dyn ServiceManager) -> Result<Vec<String>> {
    let mut running = Vec::new();
    for writer in &config.gitlab.writers {
        let state = manager.state(writer.as_str()).await?;
        running.extend(state.active.is_running().then_some(state.name));
    }
    Ok(running)
}

/// Waits for GitLab's answer after it has failed to answer once. Returns whether it came. If it
/// does not come while GitLab runs, it cannot be expected at the end of the run.
async fn wait_for_answer(config: &Config) -> bool {
    let Some(url) = &config.gitlab.readiness else { return true };
    let started = Instant::now();
    let Ok(readiness) = Readiness::of(url) else { return false };
    while let Err(error) = readiness.ask().await {
        if started.elapsed() > ANSWER_PATIENCE {
            tracing::warn!(
                "{error:#}: GitLab does not answer while it runs, so its answer is not waited for \
                 afterwards"
            );
            return false;
        }
        sleep(PAUSE).await;
    }
    true
}

/// Checks everything except the repository, which a run creates or repairs, and PostgreSQL, which
/// only accepts its own account. Changes nothing.
pub async fn host<M: ServiceManager>(
    config: &Config,
    root: &RootDirectory,
    connect: impl AsyncFnOnce() -> Result<M>,
) -> Vec<Finding> {
    let mut findings = match connect().await {
        Ok(manager) => check_units(config, root, &manager).await,
        Err(error) => vec![Finding::of("systemd", Err(error))],
    };
    if let Some(url) = &config.gitlab.readiness {
        // Only a warning: GitLab may be down for maintenance, and can be backed up all the same.
        findings.push(match readiness::ask(url).await {
            Ok(()) => Finding::of(READINESS, Ok("GitLab answers".to_owned())),
            Err(error) => Finding::warning(
                READINESS,
                format!(
                    "{error:#}: a run does not need this answer, and does not wait for it at \
                         its end"
                ),
            ),
        });
    }
    for store in stores::all() {
        findings.extend(store.preflight(config).await);
    }
    // The check would hang on a program on a file system whose server does not answer.
    if !mounted::is_among(&findings) {
        findings.extend(check_commands(config));
    }
    findings
        .extend(ensure_state_directory(root).err().map(|error| Finding::of("state", Err(error))));
    findings.extend(
        open::ensure_apart(config).err().map(|error| Finding::of("repository", Err(error))),
    );
    findings
}

/// Checks systemd's version, the installed units, and that the writers exist.
async fn check_units(
    config: &Config,
    root: &RootDirectory,
    manager: &dyn ServiceManager,
) -> Vec<Finding> {
    let version = async {
        let version = manager.version().await?;
        if version < SYSTEMD_MINIMUM {
            bail!("systemd {version} is too old: {SYSTEMD_MINIMUM} or newer is needed");
        }
        Ok(format!("version {version}"))
    };
    let version = Finding::of("systemd", version.await);
    let mut findings = vec![version, installed::check(config, root, manager).await];
    let mut missing = Vec::new();
    for writer in &config.gitlab.writers {
        match manager.state(writer.as_str()).await {
            // A missing proxy is an error of the installed units, which are checked above.
            Ok(state) if state.load == "not-found" && !config.gitlab.is_proxy(writer) => {
                missing.push(anyhow!("{writer} does not exist: correct [gitlab] writers"))
            }
            Ok(_) => {}
            Err(error) => missing.push(error),
        }
    }
    if config.gitlab.quiesce == Quiesce::Freeze {
        missing.extend(cgroup::ensure_freezes(root, "freeze").err());
    }
    let how = match config.gitlab.quiesce {
        Quiesce::Stop => "stopped for a backup",
        Quiesce::Hold => "held still for a backup, or stopped if that is not possible",
        Quiesce::Freeze => {
            "frozen for a backup, in the middle of what they do: a push in progress may be in one \
             store and not in another"
        }
    };
    let seen = format!("{} units that are {how}", config.gitlab.writers.len());
    findings.extend(Finding::each_or("gitlab", missing, seen));
    findings
}

/// Checks that the configured programs exist.
fn check_commands(config: &Config) -> Vec<Finding> {
    let own = config.files.command.iter().map(|command| &command[0]);
    let programs: Vec<&String> =
        own.chain(config.steps.iter().map(|step| &step.command[0])).collect();
    if programs.is_empty() {
        return Vec::new();
    }
    let missing = programs
        .iter()
        .filter(|program| !Path::new(program).is_file())
        .map(|program| anyhow!("{program} does not exist"))
        .collect();
    Finding::each_or("own commands", missing, format!("{} programs", programs.len()))
}

/// Fails if the state directory exists and is not a directory. systemd creates it
/// (`StateDirectory=`), and does not start a unit for which it is a link.
fn ensure_state_directory(root: &RootDirectory) -> Result<()> {
    let path = root.at(paths::STATE);
    let is_other = path.symlink_metadata().is_ok_and(|metadata| !metadata.is_dir());
    ensure!(
        !is_other,
        "{} is not a directory, so systemd cannot start the units: to keep it on another disk, \
         mount that disk there, or bind-mount a directory",
        path.display()
    );
    Ok(())
}

/// Opens the repository, or creates it if there has never been one. Repairs what a failed run may
/// have left in it.
fn prepare_repository(config: &Config, base: Base<'_>) -> Result<String> {
    let Base { clock, root, .. } = base;
    let engine = open::in_run(config, root)?;
    let location = &config.repository.location;
    open::exists(config, root, &*engine)?;
    // `init` also opens an existing repository. Opening it twice would cost a second key
    // derivation, half a second.
    if engine.init()? {
        tracing::info!(location, "created the repository");
        return Ok(format!("created at {location}"));
    }
    // Wait for other processes now, and not in the window. A prune that begins later sees this run
    // and waits.
    engine.wait_for_lock(patience::LONG)?;
    if Record::all(root, clock.now())?
        .iter()
        .find(|record| record.finished.is_some())
        .is_some_and(|last| last.outcome != Outcome::Complete)
    {
        tracing::info!("the last run failed: repairing what it may have left in the repository");
        engine.recover(clock.now())?;
    }
    Ok(format!("opens at {location}"))
}
