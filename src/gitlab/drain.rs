//! The gates: their stop makes the stops of GitLab's units wait (`units/rows/gates.rs`).
//!
//! Gitaly's unit would stop the processes of git together with Gitaly, in the middle of a push. So
//! the drain has Gitaly end by itself first, as its main process does after SIGTERM: it takes no
//! new request, and its hooks are answered until the last push has ended.

use std::time::Duration;

use anyhow::Result;
use tokio::time::Instant;

use crate::config::{Config, Phase};
use crate::finding::Finding;
use crate::gitlab::transfers;
use crate::machine::Machine;
use crate::runs::drained::{self, Drained};
use crate::systemd::{UnitView, notify};
use crate::units::{Restore, Unit};
use crate::values::UnitName;

/// How long Gitaly may take after `[gitlab] drain`, when only what must not be cut is in progress.
/// It limits itself to one minute (graceful_restart_timeout).
const PATIENCE: Duration = Duration::from_secs(90);
/// How long a gate keeps stops waiting after its window was given up, so that resume replaces them.
const GIVEN_UP: Duration = Duration::from_secs(5);

/// For `check`: how pushes in progress end before GitLab is stopped, or a warning that they may
/// not.
pub fn finding(config: &Config) -> Option<Finding> {
    let gitlab = &config.gitlab;
    let gitaly: Vec<&str> = gitlab.in_phase(Phase::Gitaly).map(UnitName::as_str).collect();
    match gitaly.is_empty() {
        _ if !gitlab.quiesce.may_stop() => None,
        false => {
            let words = format!(
                "{} ends first, while the rest of GitLab runs; after {} fetches and uploads are \
                 ended, other pushes are waited for",
                gitaly.join(", "),
                gitlab.drain
            );
            Some(Finding::of("drain", Ok(words)))
        }
        true if gitlab.phases.gitaly_is_given => None,
        true => {
            let words = "none of the writers has the name of Gitaly, so nothing ends pushes before \
                         GitLab is stopped, and one in progress may lose its event and its \
                         pipeline: name its unit with [gitlab] gitaly, or set gitaly = [] if it \
                         does not run on this host";
            Some(Finding::warning("drain", words))
        }
    }
}

/// The window of a backup or of a restore.
fn window(restore: bool) -> String {
    match restore {
        true => Unit::from(Restore::Window),
        false => Unit::Window,
    }
    .to_string()
}

/// The stop of the gate of Gitaly: waits until the door is shut, and then until Gitaly has ended.
/// Does nothing unless the window is being opened.
pub async fn drain(config: &Config, machine: Machine<'_>, restore: bool) -> Result<()> {
    let Some(mut gate) = Gate::new(config, machine, &window(restore)).await? else { return Ok(()) };
    let (door, gitaly) = (gate.units(Phase::Door), gate.units(Phase::Gitaly));
    if gate.wait_until_down(&door, config.gitlab.drain.duration(), async || Ok(())).await?
        == Wait::GivenUp
    {
        return Ok(());
    }
    let roots = terminate(config, machine, &mut gate, &gitaly).await?;
    notify::status("waiting for pushes and fetches to end");
    let since = Instant::now();
    let limit = config.gitlab.drain.duration();
    let waited = gate
        .wait_until_down(&gitaly, limit + PATIENCE, async || {
            if since.elapsed() >= limit {
                cut_transfers(config, &roots, &gitaly)?;
            }
            Ok(())
        })
        .await?;
    match waited {
        Wait::Down => tracing::info!(seconds = since.elapsed().as_secs_f64(), "Gitaly has ended"),
        Wait::TooLong => tracing::warn!(
            "{} has not ended {PATIENCE:?} after [gitlab] drain: systemd stops it, and a push may \
             lose its event",
            UnitName::texts(&gitaly).join(", ")
        ),
        Wait::GivenUp => {}
    }
    Ok(())
}

/// The stop of the gate of the background jobs: waits until the web is down. Does nothing unless
/// the window is being opened.
pub async fn background(config: &Config, machine: Machine<'_>, restore: bool) -> Result<()> {
    let Some(mut gate) = Gate::new(config, machine, &window(restore)).await? else { return Ok(()) };
    let web = gate.units(Phase::Web);
    gate.wait_until_down(&web, Duration::MAX, async || Ok(())).await.map(drop)
}

/// Has each running Gitaly end by itself: sends SIGTERM to the main processes, once. Returns their
/// PIDs.
async fn terminate(
    config: &Config,
    machine: Machine<'_>,
    gate: &mut Gate<'_>,
    gitaly: &[UnitName],
) -> Result<Vec<i32>> {
    let mut roots = Vec::new();
    let mut told = drained::load(machine.root)?;
    for unit in gitaly.iter().filter(|unit| !config.gitlab.is_proxy(unit)) {
        let state = gate.view.state(unit.as_str()).await?;
        roots.extend(i32::try_from(state.main_pid).ok().filter(|pid| *pid > 1));
        let own = Drained::of(&state);
        // A second signal would have Gitaly end at once.
        if !state.active.is_up() || told.contains(&own) {
            continue;
        }
        told.push(own);
        drained::save(machine.root, &told)?;
        machine.manager.terminate(unit.as_str()).await?;
    }
    Ok(roots)
}

/// Ends the transfers that have changed nothing.
fn cut_transfers(config: &Config, roots: &[i32], gitaly: &[UnitName]) -> Result<()> {
    let mut roots = roots.to_vec();
    if gitaly.iter().any(|unit| config.gitlab.is_proxy(unit)) {
        roots.extend(transfers::gitaly()?);
    }
    let ended = transfers::cut(&roots)?;
    if ended > 0 {
        tracing::info!(
            ended,
            "fetches and unfinished uploads exceeded [gitlab] drain and are ended"
        );
    }
    Ok(())
}

/// How a wait ended.
#[derive(Debug, PartialEq, Eq)]
enum Wait {
    Down,
    TooLong,
    /// The window is not being opened any more.
    GivenUp,
}

/// A gate during its stop.
struct Gate<'a> {
    config: &'a Config,
    view: UnitView<'a>,
    window: String,
    /// The last known jobs of the writers while the window was being opened: their stops.
    jobs: Vec<(String, u32)>,
}

impl<'a> Gate<'a> {
    /// The gate; none if the window is not being opened.
    async fn new(config: &'a Config, machine: Machine<'a>, window: &str) -> Result<Option<Self>> {
        let view = UnitView::new(machine.manager).await?;
        let mut gate = Self { config, view, window: window.to_owned(), jobs: Vec::new() };
        gate.note_jobs().await?;
        if !gate.view.state(window).await?.has_job() {
            // It may have been given up before this process began.
            gate.wait_until_replaced().await?;
            return Ok(None);
        }
        Ok(Some(gate))
    }

    /// Notes the jobs of the writers.
    async fn note_jobs(&mut self) -> Result<()> {
        self.jobs.clear();
        for unit in UnitName::texts(&self.config.gitlab.writers) {
            let job = self.view.state(&unit).await?.job;
            self.jobs.push((unit, job));
        }
        Ok(())
    }

    fn units(&self, phase: Phase) -> Vec<UnitName> {
        self.config.gitlab.in_phase(phase).cloned().collect()
    }

    /// Waits until `units` are down, and calls `each` every time they are not.
    async fn wait_until_down(
        &mut self,
        units: &[UnitName],
        limit: Duration,
        mut each: impl AsyncFnMut() -> Result<()>,
    ) -> Result<Wait> {
        let since = Instant::now();
        loop {
            let mut down = true;
            for unit in units {
                down &= self.view.state(unit.as_str()).await?.active.is_down();
            }
            if down {
                return Ok(Wait::Down);
            }
            if !self.view.state(&self.window).await?.has_job() {
                self.wait_until_replaced().await?;
                return Ok(Wait::GivenUp);
            }
            if since.elapsed() >= limit {
                return Ok(Wait::TooLong);
            }
            self.note_jobs().await?;
            each().await?;
            self.view.wait_for_change().await?;
        }
    }

    /// The window was given up. Waits until resume has replaced the stops that wait for this gate:
    /// they would run as soon as it has ended.
    async fn wait_until_replaced(&mut self) -> Result<()> {
        let since = Instant::now();
        while since.elapsed() < GIVEN_UP {
            let mut waits = false;
            for (unit, job) in self.jobs.iter().filter(|(_, job)| *job != 0) {
                let state = self.view.state(unit).await?;
                waits |= state.job == *job && state.active.is_running();
            }
            if !waits {
                break;
            }
            self.view.wait_for_change().await?;
        }
        Ok(())
    }
}
