//! Asking PID 1 for something and not waiting: for the ends of brackets, which must not hold up
//! what waits for them.

use anyhow::{Result, ensure};
use tokio::process::Command;

use super::{Manager, Mode, ServiceManager};

/// Queues the start of `unit`.
pub async fn start_later(unit: &str) -> Result<()> {
    let asked = async { Manager::connect().await?.start(unit, Mode::Replace).await }.await;
    if let Err(error) = asked {
        // The bus is one way to PID 1, systemctl's private socket another.
        tracing::warn!("{error:#}: asking through systemctl");
        let status = Command::new("systemctl").args(["start", "--no-block", unit]).status().await?;
        ensure!(
            status.success(),
            "{unit} could not be started: 'systemctl start {unit}' makes up for it"
        );
    }
    Ok(())
}
