//! The journal: read by journalctl(1), and written by its native protocol, for entries with fields.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use libsystemd::logging::{Priority, journal_send};
use tokio::process::Command;
use tokio::time::timeout;

use crate::host::text;

const PATIENCE: Duration = Duration::from_secs(5);

/// The priority of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Information.
    Info,
    /// A warning.
    Warning,
    /// An error.
    Err,
}

/// The journal of a host.
#[async_trait(?Send)]
pub trait Journal {
    /// The last `count` lines of `unit` since `since`; empty if the journal cannot be read.
    ///
    /// Does not filter by the invocation id: journald cannot determine it for messages that a
    /// process wrote right before its end.
    async fn last_lines(&self, unit: &str, since: Timestamp, count: usize) -> Vec<String>;

    /// Writes an entry with additional fields. Without a journal, only logs the message.
    fn send(&self, level: Level, message: &str, fields: &[(&str, &str)]);
}

/// The journal of this host.
pub struct HostJournal;

#[async_trait(?Send)]
impl Journal for HostJournal {
    async fn last_lines(&self, unit: &str, since: Timestamp, count: usize) -> Vec<String> {
        last_lines(unit, since, count).await
    }

    fn send(&self, level: Level, message: &str, fields: &[(&str, &str)]) {
        send(level, message, fields);
    }
}

async fn last_lines(unit: &str, since: Timestamp, count: usize) -> Vec<String> {
    // Wait until journald has written the messages that it has received.
    let _ = timeout(
        PATIENCE,
        Command::new("journalctl").args(["--quiet", "--sync"]).kill_on_drop(true).output(),
    )
    .await;
    let mut command = Command::new("journalctl");
    command.args([
        "--quiet",
        "--no-pager",
        "--output=cat",
        "--lines",
        &count.to_string(),
        "--unit",
        unit,
    ]);
    command.arg(format!("--since=@{}", since.as_second())).kill_on_drop(true);
    match timeout(PATIENCE, command.output()).await {
        Ok(Ok(output)) => {
            String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
        }
        _ => Vec::new(),
    }
}

fn send(level: Level, message: &str, fields: &[(&str, &str)]) {
    let message = text::clean(message);
    let priority = match level {
        Level::Info => Priority::Info,
        Level::Warning => Priority::Warning,
        Level::Err => Priority::Error,
    };
    if journal_send(priority, &message, fields.iter().copied()).is_err() {
        match level {
            Level::Info => tracing::info!("{message}"),
            Level::Warning => tracing::warn!("{message}"),
            Level::Err => tracing::error!("{message}"),
        }
    }
}
