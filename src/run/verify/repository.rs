//! The repository itself: its structure or every byte, its keys, and whether it holds what the
//! manifest vouches for.

use anyhow::{Context, Result, anyhow, ensure};

use crate::catalog::{CompleteRun, TREE};
use crate::finding::Finding;
use crate::paths::RootDirectory;
use crate::repository::Engine;
use crate::runs::{Outcome, Part, Record};

/// The engine's own check.
pub(super) fn check(engine: &dyn Engine, data: bool) -> Result<String> {
    let before = Record::current(&RootDirectory::host())?;
    let mut checked = engine.check(data);
    let going_on = |record: &Option<Record>| {
        record.as_ref().is_some_and(|record| record.outcome == Outcome::Running)
    };
    let now = Record::current(&RootDirectory::host())?;
    let beside = going_on(&before)
        || going_on(&now)
        || before.map(|record| record.id) != now.map(|record| record.id);
    if beside && checked.is_err() {
        // A run beside it may have replaced what was about to be read: what is wrong is so a second
        // time.
        checked = engine.check(data);
    }
    let bytes =
        if data { "every byte read" } else { "structure only; --read-data reads every byte" };
    checked.map(|()| bytes.to_owned())
}

/// Whether there is more than one.
pub(super) fn keys(engine: &dyn Engine) -> Finding {
    match engine.keys() {
        Ok(keys) if keys.len() == 1 => Finding::warning(
            "keys",
            "only one: if its password is lost, everything is; 'gitlab-backup key add' makes another, to be kept elsewhere",
        ),
        keys => Finding::of("keys", keys.map(|keys| format!("{} open the repository", keys.len()))),
    }
}

/// Whether every name of a file leads to what that file holds. Nothing where the engine cannot
/// tell.
pub(super) fn links(engine: &dyn Engine, part: &Part) -> Option<Finding> {
    let seen = match engine.count_false_links(&part.snapshot) {
        Ok(None) => return None,
        Ok(Some(0)) => Ok("every name of a file leads to its content".to_owned()),
        Ok(Some(count)) => Err(anyhow!(
            "{count} names are taken for another file, of another file system: 'restic restore' gives them its content, \
            'gitlab-backup restore' with engine 'builtin' their own; the next run has them right"
        )),
        Err(error) => Err(error),
    };
    Some(Finding::of("hard links", seen))
}

/// The snapshot is there, and is the one that the manifest vouches for.
pub(crate) fn unchanged(run: &CompleteRun, part: &Part) -> Result<String> {
    let snapshot = run.snapshots.iter().find(|snapshot| snapshot.id == part.snapshot);
    let snapshot = snapshot.with_context(|| format!("snapshot {} is gone", part.snapshot))?;
    let found = format!("{TREE}{}", snapshot.tree);
    ensure!(
        found == part.checksum,
        "snapshot {} is another one than the manifest says ({found}, not {})",
        part.snapshot,
        part.checksum
    );
    Ok(format!("{} files, {}", part.files, indicatif::BinaryBytes(part.bytes)))
}
