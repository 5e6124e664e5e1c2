//! The pause bracket: it promises that GitLab comes back.

use anyhow::{Result, ensure};

use crate::paths::RootDirectory;
use crate::runs::paused;
use crate::systemd::{Mode, ServiceManager};
use crate::units::Unit;

/// Begins the pause. Fails if nobody recorded what to start again: then nothing may be stopped.
/// Asks for the stop of `alone`, each without what hangs on it, and does not wait: the other
/// writers are being stopped meanwhile, and the window waits for all.
pub async fn begin<M: ServiceManager>(
    alone: &[String],
    root: &RootDirectory,
    connect: impl AsyncFnOnce() -> Result<M>,
) -> Result<()> {
    ensure!(
        paused::load(root)?.is_some(),
        "what was running is not on record: this unit is started by {} only",
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

/// Ends the pause: asks for resume, by `later`, and does not wait, since GitLab's start waits for the
/// window's end.
pub async fn end(later: impl AsyncFnOnce(String) -> Result<()>) -> Result<()> {
    later(Unit::Resume.to_string()).await
}
