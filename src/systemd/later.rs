//! Queues a job without waiting for it, for the ends of brackets: other units wait for these.

use anyhow::{Result, ensure};
use tokio::process::Command;

use super::{Manager, Mode, ServiceManager};

/// Queues the start of `unit`.
pub async fn start_later(unit: &str) -> Result<()> {
    let asked = async { Manager::connect().await?.start(unit, Mode::Replace).await }.await;
    if let Err(error) = asked {
        // systemctl also has a private socket to PID 1, which works without the bus.
        tracing::warn!("{error:#}: trying systemctl");
        let status = Command::new("systemctl").args(["start", "--no-block", unit]).status().await?;
        ensure!(status.success(), "{unit} could not be started: run 'systemctl start {unit}'");
    }
    Ok(())
}
