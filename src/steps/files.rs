//! What goes into the repository: the files, live or in the window, and the dumps.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::config::{Config, host};
use crate::paths;
use crate::repository::{Engine, Progress, StoreRequest, Tolerance, patience};
use crate::runs::record::write_json;
use crate::runs::{Part, Record};
use crate::systemd::notify;

use super::open;

/// Where the parts leave word for the manifest.
pub(super) const PARTS: &str = "/var/lib/gitlab-backup/staging/parts";
/// The part that holds the files.
pub const FILES: &str = "files";
/// What a first pass stores; never part of a run.
pub const PRESYNC: &str = "presync";

/// First pass with GitLab up: whatever changes meanwhile is the window's to take.
pub fn presync(config: &Config) -> Result<()> {
    let engine = open::in_run(config)?;
    store(config, &*engine, PRESYNC, &config.files.paths, Tolerance::Changing).map(drop)
}

/// The file backup in the window: anything that cannot be read fails it.
pub fn live(config: &Config) -> Result<()> {
    let engine = open::in_run(config)?;
    let part = store(config, &*engine, FILES, &config.files.paths, Tolerance::None)?;
    write_json(&Path::new(PARTS).join("files.json"), &part)
}

/// The dumps, and what own commands left for the run.
pub fn dumps(config: &Config) -> Result<()> {
    let mut engine = None;
    for name in ["postgresql", "redis", "steps"] {
        let path = Path::new(paths::STAGING).join(name);
        if !holds_files(&path)? {
            continue;
        }
        if engine.is_none() {
            engine = Some(open::in_run(config)?);
        }
        let Some(engine) = &engine else { continue };
        let part = store(config, &**engine, name, &[path], Tolerance::None)?;
        write_json(&Path::new(PARTS).join(format!("{name}.json")), &part)?;
    }
    Ok(())
}

/// Stores one part under the current run.
pub(super) fn store(config: &Config, engine: &dyn Engine, name: &str, paths: &[PathBuf], tolerance: Tolerance) -> Result<Part> {
    let run = Record::current()?.context("no run is going on: this helper is started by its unit only")?.id;
    let host = host::name();
    let exclude: &[String] = if name == FILES || name == PRESYNC { &config.files.exclude } else { &[] };
    let patience = if name == FILES { patience::SHORT } else { patience::LONG };
    // The first pass is the second's parent only if the repository takes both for the same thing: the label is the files'.
    let request = StoreRequest { run: &run, part: name, host: &host, paths, exclude, tolerance, patience };
    let started = Instant::now();
    let stored = engine.store(&request, &Status { part: name.to_owned(), last: Mutex::new(None) })?;
    for skipped in &stored.skipped {
        tracing::info!(path = %skipped.path.display(), "left to the window: {}", skipped.error);
    }
    tracing::info!(part = name, files = stored.files, bytes = stored.bytes, added = stored.bytes_added, "stored");
    Ok(Part {
        name: name.to_owned(),
        snapshot: stored.snapshot,
        paths: paths.to_vec(),
        bytes: stored.bytes,
        files: stored.files,
        seconds: started.elapsed().as_secs_f64(),
        checksum: format!("sha256-tree:{}", stored.tree),
    })
}

/// Whether there is any file below `path`.
fn holds_files(path: &Path) -> Result<bool> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        entries => entries.with_context(|| format!("cannot read {}", path.display()))?,
    };
    for entry in entries {
        let entry = entry?;
        if !entry.file_type()?.is_dir() || holds_files(&entry.path())? {
            return Ok(true);
        }
    }
    Ok(false)
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
