//! What goes into the repository: the files, however they are captured, and the dumps.
//!
//! `plan` decides how each path is captured, before GitLab is touched; [`presync`] is the first
//! pass; [`capture`] is all that the window sees of the files where there are no snapshots;
//! [`stored`] archives the frozen view with GitLab up.

pub mod alternates;
mod capture;
pub mod links;
pub mod mounted;
pub mod object_storage;
pub mod permissions;
mod plan;
mod presync;
mod restore;
pub mod storages;
mod store;
mod stored;
mod verify;

use std::path::{Path, PathBuf};
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

pub use capture::capture;
pub use plan::{Capture, CapturePlan, Way, clear_clones, explain, freeze};
pub use presync::{Pass, presync};
pub use restore::{beside, files as stage};
pub use store::FileStore;
pub use stored::stored;
pub use verify::{fsck, git_is_there};

/// Where the parts leave word for the manifest.
pub(crate) const PARTS: &str = "/var/lib/gitlab-backup/staging/parts";
/// The part that holds the files.
pub const FILES: &str = "files";
/// What a first pass stores; never part of a run.
pub const PRESYNC: &str = "presync";

/// The run that goes on.
fn run() -> Result<RunId> {
    Ok(Record::current(&RootDirectory::host())?
        .context("no run is going on: this helper is started by its unit only")?
        .id)
}

/// Stores files that are read where they are, as one part of the current run.
pub(crate) fn live(
    config: &Config,
    engine: &dyn Engine,
    name: &str,
    paths: &[PathBuf],
) -> Result<Part> {
    // The files themselves are read so only in the window, where nothing may wait for long.
    let (exclude, patience): (&[String], _) = match name {
        FILES => (&config.files.exclude, patience::SHORT),
        _ => (&[], patience::LONG),
    };
    store(engine, name, &[name], Files::Live { paths, exclude }, Tolerance::None, patience)
        .map(|(part, _)| part)
}

/// Stores one part under the current run.
fn store(
    engine: &dyn Engine,
    name: &str,
    parents: &[&str],
    files: Files<'_>,
    tolerance: Tolerance,
    patience: Duration,
) -> Result<(Part, Stored)> {
    let run = run()?;
    let host = host::name();
    let paths = files.paths();
    let request =
        StoreRequest { run: &run, part: name, host: &host, parents, files, tolerance, patience };
    let started = Instant::now();
    let stored =
        engine.store(request, &Status { part: name.to_owned(), last: Mutex::new(None) })?;
    for skipped in &stored.skipped {
        tracing::info!(path = %skipped.path.display(), "left to the window: {}", skipped.error);
    }
    // What the first pass left out is not a part of the run.
    if name != PRESYNC {
        leave_out(&stored.left_out)?;
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

/// How many paths that were left out are named.
const NAMED: usize = 20;

/// Leaves word of what no backup can hold, beside what was left before.
fn leave_out(skipped: &[Skipped]) -> Result<()> {
    let mut words: Vec<String> =
        skipped.iter().take(NAMED).map(|skipped| format!("left out: {skipped}")).collect();
    if skipped.len() > NAMED {
        words.push(format!("left out: {} more such paths", skipped.len() - NAMED));
    }
    leave_word(words.iter())
}

/// Leaves such words as they are, once.
pub(crate) fn leave_word<'a>(new: impl Iterator<Item = &'a String>) -> Result<()> {
    let mut words = left_out(&RootDirectory::host())?;
    let before = words.len();
    for word in new {
        if !words.contains(word) {
            words.push(word.clone());
        }
    }
    if words.len() == before { Ok(()) } else { write_json(Path::new(paths::LEFT_OUT), &words) }
}

/// What no backup can hold and was left out of the run that goes on.
pub fn left_out(root: &RootDirectory) -> Result<Vec<String>> {
    Ok(read_json(&root.at(paths::LEFT_OUT))?.unwrap_or_default())
}

/// Leaves word of a part for the manifest.
pub(crate) fn tell(part: &Part) -> Result<()> {
    write_json(&Path::new(PARTS).join(format!("{}.json", part.name)), part)
}

/// Progress through systemd: sd_notify(3) STATUS=, once a second.
struct Status {
    part: String,
    last: Mutex<Option<Instant>>,
}

impl Progress for Status {
    fn bytes(&self, done: u64) {
        let Ok(mut last) = self.last.lock() else { return };
        // Nothing yet is no progress, and would use up the second's one word.
        if done > 0 && last.is_none_or(|last| last.elapsed() >= Duration::from_secs(1)) {
            *last = Some(Instant::now());
            let text = format!("storing {}: {}", self.part, indicatif::BinaryBytes(done));
            notify::status(&text);
        }
    }
}
