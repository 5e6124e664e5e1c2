//! Resume: starts the units that were running before the window, and no others. Ends when they run
//! and GitLab answers.

mod comeback;

use std::time::Duration;

use anyhow::{Result, anyhow};
use tokio::time::{Instant, sleep};

use self::comeback::Comeback;
use crate::config::{Gitlab, Quiesce};
use crate::gitlab::hold::{self, Kernel};
use crate::gitlab::readiness::{Answer, Readiness};
use crate::gitlab::{freeze, restored};
use crate::machine::{Base, Machine};
use crate::runs::restore::RestoreJournal;
use crate::runs::{drained, paused};
use crate::systemd::{ActiveState, Mode, ServiceManager, notify};
use crate::units::{Plan, Restore, Unit};
use crate::values::UnitName;

const READINESS_PAUSE: Duration = Duration::from_millis(50);
const READINESS_MOST: Duration = Duration::from_secs(1);
/// How long resume waits for an answer if an admin has stopped a unit of GitLab: that unit may be
/// the one that answers.
const INCOMPLETE_PATIENCE: Duration = Duration::from_secs(60);
/// How long the remaining jobs of a window may prevent the stop of a bracket.
const RELEASE_PATIENCE: Duration = Duration::from_secs(10);
const RELEASE_PAUSE: Duration = Duration::from_millis(100);

/// The configuration of resume.
pub struct Settings {
    /// Requests GitLab's answer. None if resume does not wait for it, an error if it cannot be
    /// requested.
    pub readiness: Option<Result<Box<dyn Answer>>>,
    /// `[gitlab] stop-grace`
    pub stop_grace: Duration,
    /// `[gitlab] door`: these units are started when the others run, so that nobody meets half a
    /// GitLab.
    pub door: Vec<String>,
    /// With `quiesce = "freeze"` no unit has to be started, but resume waits for the answer.
    pub was_frozen: bool,
}

impl Default for Settings {
    /// The settings if the configuration cannot be read: that must not keep GitLab down.
    fn default() -> Self {
        Self {
            readiness: None,
            stop_grace: Duration::from_secs(10),
            door: Vec::new(),
            was_frozen: false,
        }
    }
}

impl From<&Gitlab> for Settings {
    fn from(gitlab: &Gitlab) -> Self {
        let answer = |url| Ok(Box::new(Readiness::of(url)?) as Box<dyn Answer>);
        Self {
            readiness: gitlab.readiness.as_ref().map(answer),
            stop_grace: gitlab.stop_grace.duration(),
            door: UnitName::texts(&gitlab.phases.door),
            was_frozen: gitlab.quiesce == Quiesce::Freeze,
        }
    }
}

/// Kills the gates that do not end: they would keep GitLab's starts waiting.
async fn end_gates(machine: Machine<'_>) -> Result<()> {
    let gates = Plan::GATES.map(|gate| gate.to_string());
    let names: Vec<&str> = gates.iter().map(String::as_str).collect();
    for (gate, summary) in names.iter().zip(machine.manager.summaries(&names).await?) {
        if summary.active == ActiveState::Deactivating {
            tracing::warn!(gate, "does not end: killing it, so that GitLab can be started");
            machine.manager.kill(gate).await?;
        }
    }
    Ok(())
}

/// Starts every unit that is recorded as paused. Returns when all run and GitLab answers, or at
/// once if none is recorded.
pub async fn resume<M: ServiceManager>(
    settings: &Settings,
    base: Base<'_>,
    kernel: &dyn Kernel,
    connect: impl AsyncFnOnce() -> Result<M>,
) -> Result<()> {
    // Usually the end of the hold has done this; repeated here in case it failed.
    if let Err(error) = hold::let_go(base.root, kernel) {
        tracing::error!("{error:#}");
    }
    if let Some(why) = RestoreJournal::half_way(base.root) {
        tracing::error!("{why}");
        notify::status(&why);
        return Ok(());
    }
    // Checked before connecting: during a shutdown there may be no bus.
    if !freeze::is_on_record(base.root) && matches!(paused::load(base.root), Ok(None)) {
        return Ok(());
    }
    let manager = connect().await?;
    let machine = base.with(&manager);
    // Usually the end of the window has done this; repeated here in case it failed.
    if let Err(error) = freeze::thaw(machine).await {
        tracing::error!("{error:#}");
    }
    let Some(units) = paused::load(machine.root)? else { return Ok(()) };
    tracing::info!(units = units.len(), "starting the paused units again");
    let mut comeback =
        Comeback::new(machine, settings.stop_grace, settings.door.clone(), units).await?;
    let started = Instant::now();
    while !comeback.start_missing().await? {
        if started.elapsed() >= settings.stop_grace {
            end_gates(machine).await?;
        }
        comeback.wait_for_change().await?;
    }
    let answered = match &settings.readiness {
        Some(readiness) if paused::must_answer(machine.root) => {
            wait_for_answer(settings, readiness, machine, &mut comeback).await?
        }
        _ => true,
    };
    drained::clear(machine.root)?;
    paused::clear(machine.root)?;
    stop_brackets(machine).await?;
    if answered {
        restored::finish_later(machine).await?;
        notify::status("GitLab is back");
        tracing::info!("GitLab is back");
    }
    Ok(())
}

/// Waits until GitLab answers. Returns false if it stops waiting, because an admin has stopped a
/// unit.
async fn wait_for_answer(
    settings: &Settings,
    readiness: &Result<Box<dyn Answer>>,
    machine: Machine<'_>,
    comeback: &mut Comeback<'_>,
) -> Result<bool> {
    if !settings.was_frozen && comeback.units().is_empty() {
        return Ok(true);
    }
    let started = Instant::now();
    loop {
        let asked = match readiness {
            Ok(readiness) => readiness.ask().await,
            Err(error) => Err(anyhow!("{error:#}")),
        };
        let error = match asked {
            // Another server may have answered at this URL.
            Ok(()) if comeback.check_all().await? => return Ok(true),
            Ok(()) => anyhow!("it answers, and not all of it runs"),
            Err(error) => error,
        };
        let missing = paused::missing(machine.root, comeback.units());
        let any = settings.was_frozen || !comeback.units().is_empty();
        if !any || !missing.is_empty() && started.elapsed() > INCOMPLETE_PATIENCE {
            let missing = missing.join(", ");
            let why = if settings.was_frozen {
                "were frozen and are not any more"
            } else {
                "ran before and were stopped meanwhile"
            };
            tracing::warn!(
                "GitLab does not answer ({error:#}), and is not waited for: {missing} {why}"
            );
            return Ok(false);
        }
        notify::status(&format!("GitLab's units run, waiting for its answer: {error}"));
        // Poll often at first and rarely later.
        sleep((started.elapsed() / 100).clamp(READINESS_PAUSE, READINESS_MOST)).await;
        // A unit may have gone down again.
        comeback.check_changed().await?;
    }
}

/// Stops the staging brackets of a run that has ended. Usually systemd does, when the executor ends
/// and the bracket is unneeded. But systemd checks that only once: if the executor was killed while
/// jobs of the window were still queued, the brackets stay.
async fn stop_brackets(machine: Machine<'_>) -> Result<()> {
    let manager = machine.manager;
    let started = Instant::now();
    let mut brackets = vec![Restore::Staging.into(), Unit::Staging];
    while !brackets.is_empty() && started.elapsed() < RELEASE_PATIENCE {
        for executor in [Unit::Run, Restore::Run.into()] {
            if !manager.state(&executor.to_string()).await?.is_settled() {
                return Ok(());
            }
        }
        // `Mode::Fail`: the stop must not cancel the start of the next run.
        if manager.stop(&brackets[0].to_string(), Mode::Fail).await? {
            brackets.remove(0);
        } else {
            sleep(RELEASE_PAUSE).await;
        }
    }
    Ok(())
}
