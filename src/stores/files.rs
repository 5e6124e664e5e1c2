//! The file store: captures the paths of `[files] paths`, and stores them and the dumps in the
//! repository.
//!
//! [`plan_capture`] chooses how to capture each path, before GitLab is touched. [`presync`] stores
//! the first pass. [`capture`] runs in the window, for paths that no snapshot captures.
//! [`store_files_and_dumps`] stores the frozen view when GitLab is up again.

pub mod alternates;
mod archive;
mod capture;
pub mod fssnapshot;
pub mod links;
pub mod mounted;
pub mod object_storage;
pub mod permissions;
mod plan;
mod presync;
mod restore;
pub mod storages;
mod store;
mod verify;

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::catalog::TREE;
use crate::config::Config;
use crate::frozen::Skipped;
use crate::host::{self, limits};
use crate::paths::{self, RootDirectory};
use crate::repository::{Engine, Files, Progress, StoreRequest, Stored, Tolerance, patience};
use crate::runs::record::{read_json, write_json};
use crate::runs::{Part, Record};
use crate::systemd::notify;
use crate::values::RunId;

pub use archive::store_files_and_dumps;
pub use capture::capture;
pub use plan::{Capture, CapturePlan, Way, explain_capture, plan_capture, remove_clones};
pub use presync::{Pass, presync};
pub use restore::{stage_configuration, stage_files};
pub use store::FileStore;
pub use verify::{ensure_git_installed, fsck};

/// The name of the part that holds the files.
pub const FILES: &str = "files";
/// The name under which a first pass is stored. It is never part of a run.
pub const PRESYNC: &str = "presync";

/// Where a part of the run in progress is stored, and where that is recorded.
#[derive(Clone, Copy)]
pub(crate) struct PartDestination<'a> {
    /// The repository.
    pub engine: &'a dyn Engine,
    /// The root directory.
    pub root: &'a RootDirectory,
}

/// The id of the run in progress.
fn current_run(root: &RootDirectory) -> Result<RunId> {
    Ok(Record::current(root)?
        .context("no run is going on: this helper is started by its unit only")?
        .id)
}

/// Stores the live files at `paths` as part `name` of the run in progress.
pub(crate) fn store_live(
    config: &Config,
    destination: PartDestination<'_>,
    name: &str,
    paths: &[PathBuf],
) -> Result<Part> {
    // GitLab's files are read live only in the window, where a wait for the repository is downtime.
    // All other parts are stored whole: the patterns are about GitLab's files.
    let (exclude, patience): (&[String], _) = match name {
        FILES => (&config.files.exclude, patience::SHORT),
        _ => (&[], patience::LONG),
    };
    store_part(
        destination,
        name,
        &[name],
        Files::Live { paths, exclude },
        Tolerance::None,
        patience,
    )
    .map(|(part, _)| part)
}

/// Stores `files` as part `name` of the run in progress, and records the paths that the engine had
/// to leave out. `parents` are the parts whose latest snapshots can be the parent of this one.
fn store_part(
    destination: PartDestination<'_>,
    name: &str,
    parents: &[&str],
    files: Files<'_>,
    tolerance: Tolerance,
    patience: Duration,
) -> Result<(Part, Stored)> {
    let PartDestination { engine, root } = destination;
    let run = current_run(root)?;
    let host = host::name();
    let paths = files.paths();
    let request =
        StoreRequest { run: &run, part: name, host: &host, parents, files, tolerance, patience };
    let started = Instant::now();
    let stored =
        engine.store(request, &StoreProgress { part: name.to_owned(), last: Mutex::new(None) })?;
    for skipped in &stored.skipped {
        tracing::info!(path = %skipped.path.display(), "left to the window: {}", skipped.error);
    }
    // The first pass is not part of the run: the window sees the same paths again.
    if name != PRESYNC {
        record_skipped(root, &stored.left_out)?;
    }
    tracing::info!(
        part = name,
        files = stored.files,
        bytes = stored.bytes,
        added = stored.bytes_added,
        memory_mib = limits::peak(),
        "stored"
    );
    let part = Part {
        name: name.to_owned(),
        snapshot: stored.snapshot.clone(),
        paths,
        bytes: stored.bytes,
        files: stored.files,
        seconds: started.elapsed().as_secs_f64(),
        checksum: format!("{TREE}{}", stored.tree),
    };
    Ok((part, stored))
}

/// How many skipped paths are recorded by name. The others are only counted.
const NAMED: usize = 20;

/// Records the paths that could not be stored, for the run's warnings.
fn record_skipped(root: &RootDirectory, skipped: &[Skipped]) -> Result<()> {
    let mut lines: Vec<String> =
        skipped.iter().take(NAMED).map(|skipped| format!("left out: {skipped}")).collect();
    if skipped.len() > NAMED {
        lines.push(format!("left out: {} more such paths", skipped.len() - NAMED));
    }
    record_left_out(root, lines.iter())
}

/// Adds lines to the record of what the run in progress leaves out, each line once. They become
/// the run's warnings.
pub(crate) fn record_left_out<'a>(
    root: &RootDirectory,
    new: impl Iterator<Item = &'a String>,
) -> Result<()> {
    let mut lines = read_left_out(root)?;
    let before = lines.len();
    for line in new {
        if !lines.contains(line) {
            lines.push(line.clone());
        }
    }
    if lines.len() == before { Ok(()) } else { write_json(&root.at(paths::LEFT_OUT), &lines) }
}

/// Reads the record of what the run in progress leaves out.
pub fn read_left_out(root: &RootDirectory) -> Result<Vec<String>> {
    Ok(read_json(&root.at(paths::LEFT_OUT))?.unwrap_or_default())
}

/// Shows the progress of a part in the unit's status (sd_notify(3) `STATUS=`), once a second.
struct StoreProgress {
    part: String,
    last: Mutex<Option<Instant>>,
}

impl Progress for StoreProgress {
    fn bytes(&self, done: u64) {
        let Ok(mut last) = self.last.lock() else { return };
        // A report of 0 bytes would only delay the first useful one by a second.
        if done > 0 && last.is_none_or(|last| last.elapsed() >= Duration::from_secs(1)) {
            *last = Some(Instant::now());
            let text = format!("storing {}: {}", self.part, indicatif::BinaryBytes(done));
            notify::status(&text);
        }
    }
}
