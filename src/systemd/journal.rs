//! The journal, read through journalctl(1).

use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

/// The last `count` lines that the invocation of `unit` (or the unit, if there is no invocation) wrote. Empty where the journal cannot be read:
/// lines of a log are never worth failing for.
pub async fn last_lines(unit: &str, invocation: &str, count: usize) -> Vec<String> {
    let mut command = Command::new("journalctl");
    command.args(["--quiet", "--no-pager", "--output=cat", "--lines"]).arg(count.to_string()).kill_on_drop(true);
    match invocation {
        "" => command.args(["--unit", unit]),
        id => command.arg(format!("_SYSTEMD_INVOCATION_ID={id}")).arg("+").arg(format!("INVOCATION_ID={id}")),
    };
    match timeout(Duration::from_secs(5), command.output()).await {
        Ok(Ok(output)) => String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}
