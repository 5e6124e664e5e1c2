//! The pause bracket: it promises that GitLab comes back.

use anyhow::{Result, ensure};

use crate::runs::paused;
use crate::systemd::start_later;
use crate::units::Unit;

/// Begins the pause. Fails if nobody recorded what to start again: then nothing may be stopped.
pub fn begin() -> Result<()> {
    ensure!(paused::load()?.is_some(), "what was running is not on record: this unit is started by {} only", Unit::Run);
    Ok(())
}

/// Ends the pause: asks for resume and does not wait, since GitLab's start waits for the window's end.
pub async fn end() -> Result<()> {
    start_later(&Unit::Resume.to_string()).await
}
