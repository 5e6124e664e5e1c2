//! Errors that the library ignores: it reports some of them in its log only. They are collected
//! here, and the files count as not read.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use anyhow::{Result, ensure};
use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::frozen::Skipped;

/// How the library's message begins when it leaves something out.
const IGNORED: &str = "ignoring error";
/// A message that begins in the same way although nothing is left out: a file is read again instead
/// of being taken from the parent snapshot.
const HARMLESS: &str = "ignoring error when loading parent tree";

static MESSAGES: Mutex<Vec<String>> = Mutex::new(Vec::new());
static LOGGER: Logger = Logger;

/// The logger of the library.
struct Logger;

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Warn
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let text = record.args().to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        tracing::debug!("{}: {text}", record.target());
        if text.starts_with(IGNORED) && !text.starts_with(HARMLESS) {
            messages().push(text);
        }
    }

    fn flush(&self) {}
}

fn messages() -> MutexGuard<'static, Vec<String>> {
    MESSAGES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Collects the library's "ignoring error" messages while it lives. A process has one logger, so
/// only one store at a time can collect.
pub(super) struct Collection {
    _lock: MutexGuard<'static, ()>,
}

/// Begins to collect. Fails if another logger is installed, because an error could then be missed.
pub(super) fn collect() -> Result<Collection> {
    static SET: OnceLock<bool> = OnceLock::new();
    static LOCK: Mutex<()> = Mutex::new(());
    let set = *SET.get_or_init(|| {
        log::set_max_level(LevelFilter::Warn);
        log::set_logger(&LOGGER).is_ok()
    });
    ensure!(
        set,
        "cannot read the log of the repository library: another logger has been installed"
    );
    let lock = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
    messages().clear();
    Ok(Collection { _lock: lock })
}

impl Collection {
    /// Ends the collection and returns it.
    pub(super) fn finish(self) -> Vec<Skipped> {
        std::mem::take(&mut *messages())
            .into_iter()
            .map(|text| Skipped { path: PathBuf::new(), error: text })
            .collect()
    }
}
