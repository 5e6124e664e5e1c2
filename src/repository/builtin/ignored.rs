//! The second net: the library tells some failures to its log only. Whatever it ignores is caught
//! here and counts as not read.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use anyhow::{Result, ensure};
use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::frozen::Skipped;

/// What the library says when it leaves something out.
const IGNORED: &str = "ignoring error";
/// The same words, but nothing is left out: the file is read again instead of being taken from
/// yesterday's snapshot.
const HARMLESS: &str = "ignoring error when loading parent tree";

static CAUGHT: Mutex<Vec<String>> = Mutex::new(Vec::new());
static CATCHER: Catcher = Catcher;

struct Catcher;

impl Log for Catcher {
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
            caught().push(text);
        }
    }

    fn flush(&self) {}
}

fn caught() -> MutexGuard<'static, Vec<String>> {
    CAUGHT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The net while it is spread. The log is the process's, so only one store at a time can have it.
pub(super) struct Spread {
    _turn: MutexGuard<'static, ()>,
}

/// Spreads the net. Fails if another logger is in its place: then a failure could go unnoticed.
pub(super) fn spread() -> Result<Spread> {
    static SET: OnceLock<bool> = OnceLock::new();
    static TURN: Mutex<()> = Mutex::new(());
    let set = *SET.get_or_init(|| {
        log::set_max_level(LevelFilter::Warn);
        log::set_logger(&CATCHER).is_ok()
    });
    ensure!(
        set,
        "the log of the repository library cannot be listened to: another logger has been set"
    );
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    caught().clear();
    Ok(Spread { _turn: turn })
}

impl Spread {
    /// What was caught.
    pub(super) fn draw(self) -> Vec<Skipped> {
        std::mem::take(&mut *caught())
            .into_iter()
            .map(|text| Skipped { path: PathBuf::new(), error: text })
            .collect()
    }
}
