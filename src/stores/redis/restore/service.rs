//! Stops and starts the units of Redis servers. A server must be down while its file is replaced:
//! it reads the file when it starts and writes it when it stops.

use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::time::{Instant, sleep};

use crate::config::{Config, Proxy, Redis};
use crate::runs::restore::RestorePlan;
use crate::stores::redis::connection::Connection;
use crate::systemd::{ActiveState, Mode, ServiceManager, notify};

/// The poll interval.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a server may take to stop. It may save first.
const STOP: Duration = Duration::from_secs(600);

/// Fails if a unit was started after `since` (monotonic, microseconds). Its server may have read
/// the old file, and would overwrite the new one when it stops.
pub(super) async fn ensure_not_started(
    plan: &RestorePlan,
    manager: &dyn ServiceManager,
    since: u64,
) -> Result<()> {
    for redis in &plan.redis {
        let state = manager.state(&redis.unit).await?;
        ensure!(
            state.is_settled() && state.inactive_exit < since,
            "{} was started by another unit or by hand while its file was replaced ('systemctl \
             list-dependencies --reverse {}' shows which units want it)",
            redis.unit,
            redis.unit
        );
    }
    Ok(())
}

/// Stops the units, and waits until they are down. A unit that is started in the meantime is
/// stopped again.
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
        // When a native unit is down, its processes have ended. A failed proxy is different: the
        // service behind it may still run.
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

/// Starts the units, and waits until every server has loaded its file.
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
        while let Err(error) = ensure_loaded(redis).await {
            let state = manager.state(&staged.unit).await?;
            ensure!(
                Instant::now() < deadline
                    && !(state.is_settled() && state.active == ActiveState::Failed),
                "{} did not start with the restored file: {error:#} (journalctl -u {})",
                staged.unit,
                staged.unit
            );
            sleep(PAUSE).await;
        }
    }
    Ok(())
}

/// Fails if the server does not answer, or still loads its file.
async fn ensure_loaded(redis: &Redis) -> Result<()> {
    let info = Connection::connect(redis).await?.info().await?;
    ensure!(info.number("loading")? == 0, "it is loading");
    Ok(())
}
