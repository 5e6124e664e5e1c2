//! The journal: read through journalctl(1), and written to by its own protocol where an entry has
//! fields that are looked for.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use libsystemd::logging::{Priority, journal_send};
use tokio::process::Command;
use tokio::time::timeout;

use crate::host::text;

const PATIENCE: Duration = Duration::from_secs(5);

/// How much an entry matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// It is as it should be.
    Info,
    /// Somebody should know.
    Warning,
    /// Somebody has to do something.
    Err,
}

/// The journal of a host.
#[async_trait(?Send)]
pub trait Journal {
    /// The last `count` lines that `unit` wrote since `since`. Empty where the journal cannot be
    /// read: lines of a log are never worth failing for.
    ///
    /// Not by the invocation's id: the journal does not know it of what a process wrote just before
    /// its end.
    async fn last_lines(&self, unit: &str, since: Timestamp, count: usize) -> Vec<String>;

    /// Writes an entry with fields of its own; where there is no journal, a line of the log.
    fn send(&self, level: Level, message: &str, fields: &[(&str, &str)]);
}

/// The one that journald keeps.
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

/// As [`Journal::last_lines`], of this host.
pub async fn last_lines(unit: &str, since: Timestamp, count: usize) -> Vec<String> {
    // What is on its way is written first.
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
