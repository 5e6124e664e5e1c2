//! Captures everything while GitLab is held still, and decides what happens if that fails.

use anyhow::{Context, Result, bail};

use super::capture::{self, Captured};
use super::window::Window;
use super::{resume, stage};
use crate::config::{Config, Fallback, Quiesce};
use crate::machine::Machine;
use crate::runs::held::HoldAccount;
use crate::runs::{How, Quiesced, Record};
use crate::systemd::UnitView;
use crate::units::{Plan, Unit};

/// Captures everything while GitLab is held still. Returns none if GitLab is to be stopped instead:
/// the configuration says so, or GitLab could not be held.
pub(super) async fn capture(
    config: &Config,
    machine: Machine<'_>,
    plan: &Plan<'_>,
    record: &mut Record,
) -> Result<Option<Captured>> {
    if config.gitlab.quiesce != Quiesce::Hold {
        return Ok(None);
    }
    let before = HoldAccount::load(machine.root)?;
    if let Some(why) = before.obstacle.or_else(|| too_long(config, record)) {
        if config.gitlab.hold.is_optional() {
            tracing::info!("GitLab is stopped, and not held: {why}");
            return Ok(None);
        }
        return fall_back(config, record, &why);
    }
    let window = Window::hold(config, plan);
    match capture::capture(config, machine, &window).await {
        Ok(captured) => {
            let account = HoldAccount::load(machine.root)?;
            record.quiesced =
                Some(Quiesced { how: How::Held, search: account.search, background: None });
            Ok(Some(captured))
        }
        Err(error) => {
            let account = HoldAccount::load(machine.root)?;
            record.quiesced =
                Some(Quiesced { how: How::Stopped, search: account.search, background: None });
            let state = machine.manager.state(&Unit::Hold.to_string()).await?;
            // Otherwise the hold was fine, and something else failed.
            if account.failure.is_none() && state.result == "success" {
                return Err(error);
            }
            let why = account.failure.unwrap_or_else(|| format!("{error:#}"));
            end(config, machine, plan, &window).await.with_context(|| {
                format!("GitLab could not be held ({why}), and cannot be stopped instead")
            })?;
            fall_back(config, record, &why)
        }
    }
}

/// Why the capture will not end in the time that users may wait, as far as that is known.
fn too_long(config: &Config, record: &Record) -> Option<String> {
    let expected = record.expected?.capture;
    let longest = config.gitlab.hold.longest;
    (expected > longest.duration().as_secs_f64() / 2.0).then(|| {
        format!(
            "the capture will probably take {expected:.1} s, more than half of [gitlab] max-hold \
             ({longest})"
        )
    })
}

/// GitLab is stopped, or the run fails, as `hold-fallback` says.
fn fall_back(config: &Config, record: &mut Record, why: &str) -> Result<Option<Captured>> {
    if config.gitlab.hold.fallback == Fallback::Fail {
        bail!("GitLab could not be held, and hold-fallback = \"fail\": {why}");
    }
    let words = format!("GitLab could not be held, and was stopped instead: {why}");
    tracing::warn!("{words}");
    record.warnings.push(words);
    Ok(None)
}

/// Ends an attempt: waits until all of GitLab runs again, and nothing is captured any more.
async fn end(
    config: &Config,
    machine: Machine<'_>,
    plan: &Plan<'_>,
    window: &Window,
) -> Result<()> {
    resume::wait(machine, config).await?;
    let mut view = UnitView::new(machine.manager).await?;
    for member in &window.members {
        let member = member.to_string();
        view.stop(&member).await?;
        view.wait_until_settled(&member).await?;
    }
    // The end of the snapshots has removed it, and what it had prepared.
    match plan.needed(Unit::FsPlan) {
        Some(unit) => stage::run_unit(machine, &unit).await,
        None => Ok(()),
    }
}
