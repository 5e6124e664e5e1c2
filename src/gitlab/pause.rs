//! The pause bracket: it promises that GitLab comes back.

use anyhow::{Result, ensure};

use crate::runs::paused;
use crate::systemd::{Manager, start_later};
use crate::units::Unit;

/// Begins the pause. Fails if nobody recorded what to start again: then nothing may be stopped.
/// Asks for the stop of `alone`, each without what hangs on it, and does not wait: the other
/// writers are being stopped meanwhile, and the window waits for all.
pub async fn begin(alone: &[String]) -> Result<()> {
    ensure!(
        paused::load()?.is_some(),
        "what was running is not on record: this unit is started by {} only",
        Unit::Run
    );
    if alone.is_empty() {
        return Ok(());
    }
    let manager = Manager::connect().await?;
    for unit in alone {
        manager.stop_alone(unit).await?;
    }
    Ok(())
}

/// Ends the pause: asks for resume and does not wait, since GitLab's start waits for the window's
/// end.
pub async fn end() -> Result<()> {
    start_later(&Unit::Resume.to_string()).await
}
