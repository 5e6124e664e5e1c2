//! The log: each event is a line on standard error. If that is the journal, each line begins with
//! its priority, sd-daemon(3), so that `journalctl -p warning` works.
//!
//! It does not use the journal's native protocol: journald cannot determine the unit of a process
//! that has ended, so it could not assign the last messages of a helper.

use std::io::{self, Write};
use std::sync::LazyLock;

use rustix::fs::fstat;
use tracing::Level;
use tracing_subscriber::fmt::MakeWriter;

use super::text;

/// The priority of errors, syslog(3) LOG_ERR.
const ERR: &str = "<3>";

/// Writes events to standard error.
#[derive(Debug, Clone, Copy, Default)]
pub struct Log;

/// Writes one event.
#[derive(Debug, Clone, Copy)]
pub struct LogEvent {
    priority: &'static str,
}

impl MakeWriter<'_> for Log {
    type Writer = LogEvent;

    fn make_writer(&self) -> LogEvent {
        LogEvent { priority: priority(Level::INFO) }
    }

    fn make_writer_for(&self, meta: &tracing::Metadata<'_>) -> LogEvent {
        LogEvent { priority: priority(*meta.level()) }
    }
}

impl Write for LogEvent {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        put(self.priority, &text::bytes(event.strip_suffix(b"\n").unwrap_or(event)));
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Logs why a command failed, in one or several lines. Does nothing if `why` is empty.
pub fn failure(why: &str) {
    if !why.is_empty() {
        put(ERR, &text::lines(&format!("gitlab-backup: {why}")));
    }
}

/// Writes lines without control characters.
fn put(priority: &str, lines: &str) {
    text::err(&if *JOURNAL { marked(priority, lines) } else { lines.to_owned() });
}

/// Adds the priority to each line, because each becomes an entry.
fn marked(priority: &str, lines: &str) -> String {
    lines.lines().map(|line| format!("{priority}{line}")).collect::<Vec<_>>().join("\n")
}

fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => ERR,
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        _ => "<7>",
    }
}

/// Whether standard error is the journal, systemd.exec(5) `$JOURNAL_STREAM`. Compares the file,
/// because a process with a redirected standard error inherits the variable as well.
static JOURNAL: LazyLock<bool> = LazyLock::new(|| {
    let stream = std::env::var("JOURNAL_STREAM").ok();
    let here = fstat(rustix::stdio::stderr()).ok();
    here.zip(stream)
        .is_some_and(|(here, stream)| stream == format!("{}:{}", here.st_dev, here.st_ino))
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_of_an_event_has_its_priority() {
        assert_eq!(
            marked(priority(Level::ERROR), "gitlab-backup: a: b\n  c: d"),
            "<3>gitlab-backup: a: b\n<3>  c: d"
        );
        assert_eq!(marked(priority(Level::WARN), "old"), "<4>old");
    }
}
