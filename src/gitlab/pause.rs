//! The pause bracket: its end requests the start of GitLab.

use anyhow::{Result, ensure};

use crate::paths::RootDirectory;
use crate::runs::paused;
use crate::systemd::{Mode, ServiceManager};
use crate::units::Unit;

/// Begins the pause. Fails if there is no record of the units to start again: without it, nothing
/// may be stopped. Queues the stop of each unit of `alone`, without its dependents, and does not
/// wait: systemd stops the other writers at the same time, and the window waits for all of them.
pub async fn begin<M: ServiceManager>(
    alone: &[String],
    root: &RootDirectory,
    connect: impl AsyncFnOnce() -> Result<M>,
) -> Result<()> {
    ensure!(
        paused::load(root)?.is_some(),
        "the units that were running are not recorded: only {} starts this unit",
        Unit::Run
    );
    if alone.is_empty() {
        return Ok(());
    }
    let manager = connect().await?;
    for unit in alone {
        manager.stop(unit, Mode::IgnoreRequirements).await?;
    }
    Ok(())
}

/// Ends the pause: queues the start of resume by `later`. Does not wait, because the start of
/// GitLab waits for the end of the window.
pub async fn end(later: impl AsyncFnOnce(String) -> Result<()>) -> Result<()> {
    later(Unit::Resume.to_string()).await
}
