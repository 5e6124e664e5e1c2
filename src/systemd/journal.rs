//! The journal, read through journalctl(1).

use std::time::Duration;

use jiff::Timestamp;
use tokio::process::Command;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(5);

/// The last `count` lines that `unit` wrote since `since`. Empty where the journal cannot be read: lines of a log are never worth failing for.
///
/// Not by the invocation's id: the journal does not know it of what a process wrote just before its end.
pub async fn last_lines(unit: &str, since: Timestamp, count: usize) -> Vec<String> {
    // What is on its way is written first.
    let _ = timeout(PATIENCE, Command::new("journalctl").args(["--quiet", "--sync"]).kill_on_drop(true).output()).await;
    let mut command = Command::new("journalctl");
    command.args(["--quiet", "--no-pager", "--output=cat", "--lines", &count.to_string(), "--unit", unit]);
    command.arg(format!("--since=@{}", since.as_second())).kill_on_drop(true);
    match timeout(PATIENCE, command.output()).await {
        Ok(Ok(output)) => String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}
