//! Checks the repository: its structure or all of its data, its keys, and that it still holds the
//! snapshots that the manifest names.

use anyhow::{Context, Result, ensure};

use crate::catalog::{CompleteRun, TREE};
use crate::finding::Finding;
use crate::paths::RootDirectory;
use crate::repository::Engine;
use crate::runs::{Outcome, Part, Record};

/// Runs the engine's own check: of every byte if `read_data`, else of the structure. If a run was
/// in progress meanwhile and the check failed, it is repeated: the run may have replaced files that
/// the check was about to read.
pub(super) fn check(engine: &dyn Engine, root: &RootDirectory, read_data: bool) -> Result<String> {
    let before = Record::current(root)?;
    let mut checked = engine.check(read_data);
    let is_running = |record: &Option<Record>| {
        record.as_ref().is_some_and(|record| record.outcome == Outcome::Running)
    };
    let now = Record::current(root)?;
    let overlapped = is_running(&before)
        || is_running(&now)
        || before.map(|record| record.id) != now.map(|record| record.id);
    if overlapped && checked.is_err() {
        checked = engine.check(read_data);
    }
    let extent =
        if read_data { "every byte read" } else { "structure only; --read-data reads every byte" };
    checked.map(|()| extent.to_owned())
}

/// Warns if the repository has only one key.
pub(super) fn check_keys(engine: &dyn Engine) -> Finding {
    match engine.keys() {
        Ok(keys) if keys.len() == 1 => Finding::warning(
            "keys",
            "only one key: losing its password loses every backup; add another with \
             'gitlab-backup key add' and keep it elsewhere",
        ),
        keys => Finding::of("keys", keys.map(|keys| format!("{} open the repository", keys.len()))),
    }
}

/// Fails unless the repository has the part's snapshot with the checksum that the manifest records.
/// Returns a line for the report.
pub(crate) fn ensure_unchanged(run: &CompleteRun, part: &Part) -> Result<String> {
    let snapshot = run.snapshots.iter().find(|snapshot| snapshot.id == part.snapshot);
    let snapshot = snapshot.with_context(|| format!("snapshot {} is gone", part.snapshot))?;
    let found = format!("{TREE}{}", snapshot.tree);
    ensure!(
        found == part.checksum,
        "snapshot {} is not the one in the manifest ({found}, not {})",
        part.snapshot,
        part.checksum
    );
    Ok(format!("{} files, {}", part.files, indicatif::BinaryBytes(part.bytes)))
}
