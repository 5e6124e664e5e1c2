//! The pause bracket: it promises that GitLab comes back.

use std::process::Command;

use anyhow::{Result, ensure};

use crate::runs::paused;
use crate::systemd::Manager;
use crate::units::Unit;

/// Begins the pause. Fails if nobody recorded what to start again: then nothing may be stopped.
pub fn begin() -> Result<()> {
    ensure!(paused::load()?.is_some(), "what was running is not on record: this unit is started by {} only", Unit::Run);
    Ok(())
}

/// Ends the pause: asks for resume and does not wait, since GitLab's start waits for the window's end.
pub async fn end() -> Result<()> {
    let resume = Unit::Resume.to_string();
    let asked = async { Manager::connect().await?.start(&resume, "replace").await }.await;
    if let Err(error) = asked {
        // The bus is one way to PID 1, systemctl's private socket another.
        tracing::warn!("{error:#}: asking through systemctl");
        let status = Command::new("systemctl").args(["start", "--no-block", &resume]).status()?;
        ensure!(status.success(), "{resume} could not be started: 'systemctl start {resume}' brings GitLab back");
    }
    Ok(())
}
