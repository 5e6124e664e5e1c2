//! A server reads its file only when it starts, and writes it when it stops: it is down while the
//! file is replaced.

use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::time::{Instant, sleep};

use crate::config::{Config, Proxy, Redis};
use crate::runs::restore::RestorePlan;
use crate::stores::redis::server::Server;
use crate::systemd::{ActiveState, Mode, ServiceManager, notify};

const PAUSE: Duration = Duration::from_millis(100);
/// How long a server may take to stop: it may save first.
const STOP: Duration = Duration::from_secs(600);

/// Fails with a server that somebody has started after `since`: it has read what was to be
/// replaced, and writes it when it ends.
pub(super) async fn ensure_down(
    plan: &RestorePlan,
    manager: &dyn ServiceManager,
    since: u64,
) -> Result<()> {
    for redis in &plan.redis {
        let state = manager.state(&redis.unit).await?;
        ensure!(
            state.is_settled() && state.inactive_exit < since,
            "{} was started by somebody else while its file was replaced ('systemctl list-dependencies --reverse {}' tells what wants it)",
            redis.unit,
            redis.unit
        );
    }
    Ok(())
}

/// Stops the servers, and waits until they are down. One that somebody starts meanwhile is stopped
/// again.
pub(super) async fn stop(plan: &RestorePlan, manager: &dyn ServiceManager) -> Result<()> {
    for redis in &plan.redis {
        notify::status(&format!("stopping {}", redis.unit));
        manager.stop(&redis.unit, Mode::Replace).await?;
    }
    let started = Instant::now();
    for redis in &plan.redis {
        loop {
            let state = manager.state(&redis.unit).await?;
            if state.is_settled() {
                break;
            }
            ensure!(started.elapsed() < STOP, "{} does not stop", redis.unit);
            if state.active == ActiveState::Active && !state.has_job() {
                manager.stop(&redis.unit, Mode::Replace).await?;
            }
            sleep(PAUSE).await;
        }
        // Of a unit's own processes nothing is left then; a proxy says so of a service that may run
        // on.
        let failed = manager.state(&redis.unit).await?.active == ActiveState::Failed
            && redis.unit.starts_with(Proxy::PREFIX);
        ensure!(
            !failed,
            "the service behind {} does not stop (journalctl -u {})",
            redis.unit,
            redis.unit
        );
    }
    Ok(())
}

/// Starts the servers, and waits until they answer with what they have read.
pub(super) async fn start(
    config: &Config,
    plan: &RestorePlan,
    manager: &dyn ServiceManager,
) -> Result<()> {
    for staged in &plan.redis {
        manager.reset_failed(&staged.unit).await?;
        manager.start(&staged.unit, Mode::Replace).await?;
    }
    for staged in &plan.redis {
        notify::status(&format!("waiting for {}", staged.unit));
        let Some(redis) = config.redis.iter().find(|redis| redis.name == staged.name) else {
            continue;
        };
        let deadline = Instant::now() + redis.timeout.duration();
        while let Err(error) = loaded(redis).await {
            let state = manager.state(&staged.unit).await?;
            ensure!(
                Instant::now() < deadline
                    && !(state.is_settled() && state.active == ActiveState::Failed),
                "{} does not come back with its file: {error:#} (journalctl -u {})",
                staged.unit,
                staged.unit
            );
            sleep(PAUSE).await;
        }
    }
    Ok(())
}

async fn loaded(redis: &Redis) -> Result<()> {
    let info = Server::connect(redis).await?.info().await?;
    ensure!(info.number("loading")? == 0, "it is loading");
    Ok(())
}
