//! Resume: starts again exactly what was running, and does not end before it runs and answers.

mod comeback;

use std::time::Duration;

use anyhow::{Result, anyhow};
use tokio::time::{Instant, sleep};

use self::comeback::Comeback;
use crate::config::{Gitlab, Quiesce};
use crate::gitlab::readiness::{Answer, Readiness};
use crate::gitlab::{freeze, restored};
use crate::machine::{Base, Machine};
use crate::runs::paused;
use crate::runs::restore::Journal;
use crate::systemd::{Mode, ServiceManager, notify};
use crate::units::{Restore, Unit};

const READINESS_PAUSE: Duration = Duration::from_millis(50);
const READINESS_MOST: Duration = Duration::from_secs(1);
/// How long an answer is waited for when somebody has stopped a part of GitLab: it may be the part
/// that answers.
const INCOMPLETE_PATIENCE: Duration = Duration::from_secs(60);
/// How long what is left of a window's jobs may keep a bracket from being ended.
const RELEASE_PATIENCE: Duration = Duration::from_secs(10);
const RELEASE_PAUSE: Duration = Duration::from_millis(100);

/// What of the configuration resume goes by.
pub struct Settings {
    /// GitLab's answer; none if it is not waited for, an error if it cannot be asked.
    pub readiness: Option<Result<Box<dyn Answer>>>,
    /// `[gitlab] stop-grace`
    pub stop_grace: Duration,
    /// Nothing is stopped for a backup: GitLab's answer shows that it goes on.
    pub freezes: bool,
}

impl Default for Settings {
    /// For when the configuration cannot be read: a file that was broken meanwhile must not keep
    /// GitLab away.
    fn default() -> Self {
        Self { readiness: None, stop_grace: Duration::from_secs(10), freezes: false }
    }
}

impl From<&Gitlab> for Settings {
    fn from(gitlab: &Gitlab) -> Self {
        let answer = |url| Ok(Box::new(Readiness::of(url)?) as Box<dyn Answer>);
        Self {
            readiness: gitlab.readiness.as_ref().map(answer),
            stop_grace: gitlab.stop_grace.duration(),
            freezes: gitlab.quiesce == Quiesce::Freeze,
        }
    }
}

/// Brings back every unit on the record; returns when all run and GitLab answers. Nothing on
/// record: nothing to do.
pub async fn resume<M: ServiceManager>(
    settings: &Settings,
    base: Base<'_>,
    connect: impl AsyncFnOnce() -> Result<M>,
) -> Result<()> {
    if let Some(why) = Journal::half_way(base.root) {
        tracing::error!("{why}");
        notify::status(&why);
        return Ok(());
    }
    // The bus may be gone, at a shutdown.
    if !freeze::is_on_record(base.root) && matches!(paused::load(base.root), Ok(None)) {
        return Ok(());
    }
    let manager = connect().await?;
    let machine = base.with(&manager);
    // The second line: the window's end has done it already.
    if let Err(error) = freeze::thaw(machine).await {
        tracing::error!("{error:#}");
    }
    let Some(units) = paused::load(machine.root)? else { return Ok(()) };
    tracing::info!(units = units.len(), "starting again what was running");
    let mut comeback = Comeback::new(machine, settings.stop_grace, units).await?;
    while !comeback.all_running().await? {
        comeback.changed().await?;
    }
    let answered = match &settings.readiness {
        Some(readiness) if paused::is_to_answer(machine.root) => {
            answers(settings, readiness, machine, &mut comeback).await?
        }
        _ => true,
    };
    paused::clear(machine.root)?;
    release(machine).await?;
    if answered {
        restored::finish_later(machine).await?;
        notify::status("GitLab is back");
        tracing::info!("GitLab is back");
    }
    Ok(())
}

/// Waits for GitLab's answer; false if it is not waited for any longer.
async fn answers(
    settings: &Settings,
    readiness: &Result<Box<dyn Answer>>,
    machine: Machine<'_>,
    comeback: &mut Comeback<'_>,
) -> Result<bool> {
    if !settings.freezes && comeback.units().is_empty() {
        return Ok(true);
    }
    let started = Instant::now();
    loop {
        let asked = match readiness {
            Ok(readiness) => readiness.ask().await,
            Err(error) => Err(anyhow!("{error:#}")),
        };
        let error = match asked {
            // Somebody else may have answered in its place.
            Ok(()) if comeback.look_again().await? => return Ok(true),
            Ok(()) => anyhow!("it answers, and not all of it runs"),
            Err(error) => error,
        };
        let missing = paused::missing(machine.root, comeback.units());
        let any = settings.freezes || !comeback.units().is_empty();
        if !any || !missing.is_empty() && started.elapsed() > INCOMPLETE_PATIENCE {
            let missing = missing.join(", ");
            let why = if settings.freezes {
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
        // Often while it may come any moment, seldom when it is late.
        sleep((started.elapsed() / 100).clamp(READINESS_PAUSE, READINESS_MOST)).await;
        // Something may have gone down again meanwhile.
        comeback.look().await?;
    }
}

/// Ends the brackets of a run that is over. systemd looks once whether anybody needs it, when the
/// executor ends; where that one was killed with all that is called at its end, the jobs of the
/// window are still queued in that moment, and nobody looks again.
async fn release(machine: Machine<'_>) -> Result<()> {
    let manager = machine.manager;
    let started = Instant::now();
    let mut brackets = vec![Restore::Staging.into(), Unit::Staging];
    while !brackets.is_empty() && started.elapsed() < RELEASE_PATIENCE {
        for executor in [Unit::Run, Restore::Run.into()] {
            if !manager.state(&executor.to_string()).await?.is_settled() {
                return Ok(());
            }
        }
        // Whether the next run begins in this very moment, systemd alone knows.
        if manager.stop(&brackets[0].to_string(), Mode::Fail).await? {
            brackets.remove(0);
        } else {
            sleep(RELEASE_PAUSE).await;
        }
    }
    Ok(())
}
