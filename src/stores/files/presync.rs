//! The first pass: stores the files with GitLab up, so that the window has to capture only the
//! files that changed since.

use std::time::Instant;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::frozen::{At, Exclude, View, Walk, settled};
use crate::host::limits;
use crate::machine::Base;
use crate::open;
use crate::paths::{self, RootDirectory};
use crate::repository::{Files, Stored, Tolerance, patience};
use crate::runs::budget::Ahead;
use crate::runs::record::write_json;
use crate::systemd::notify;

use super::{CapturePlan, FILES, PRESYNC, PartDestination, store_part};

/// The measurements of a first pass, from which the length of the window is estimated.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Pass {
    /// Files, directories and other entries that the window will walk.
    pub entries: u64,
    /// Duration of the walk, seconds.
    pub walk: f64,
    /// Duration of the whole first pass, seconds.
    pub seconds: f64,
    /// Bytes added to the repository.
    pub bytes_added: u64,
}

impl Pass {
    /// Estimates the work of the window. `since` is the age of the last run in seconds. Files are
    /// assumed to change at the same rate during the first pass as between that run and now;
    /// without a last run, as many bytes as the first pass has added.
    pub fn estimate_window(&self, since: Option<f64>) -> Ahead {
        let share =
            since.filter(|since| *since > self.seconds).map_or(1.0, |since| self.seconds / since);
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss
        )]
        let changed = (self.bytes_added as f64 * share) as u64;
        Ahead { walk: self.walk, changed }
    }
}

/// Stores the first pass. Then flushes every file system, so that a snapshot in the window does not
/// wait for dirty pages.
pub fn presync(config: &Config, base: Base<'_>) -> Result<()> {
    let plan = CapturePlan::current(base.root)?;
    let started = Instant::now();
    let mut pass = Pass::default();
    if plan.is_live() {
        let files = Files::Live { paths: &config.files.paths, exclude: &config.files.exclude };
        pass.bytes_added = store(config, base.root, files)?.bytes_added;
    } else if plan.walked_paths().next().is_some() {
        pass = walk_and_store(config, base, &plan)?;
    }
    for capture in &plan.captures {
        settled(&capture.path, base.clock)?;
    }
    pass.seconds = started.elapsed().as_secs_f64();
    tracing::info!(
        entries = pass.entries,
        seconds = pass.seconds,
        memory_mib = limits::peak(),
        "first pass"
    );
    write_json(&base.root.at(paths::PASS), &pass)
}

/// Stores the first pass, whose snapshot becomes the parent of the run's. Files may change while
/// they are read.
fn store(config: &Config, root: &RootDirectory, files: Files<'_>) -> Result<Stored> {
    let engine = open::in_run(config, root)?;
    let (destination, parents) = (PartDestination { engine: &*engine, root }, [FILES, PRESYNC]);
    let (_, stored) =
        store_part(destination, PRESYNC, &parents, files, Tolerance::Changing, patience::LONG)?;
    Ok(stored)
}

/// Walks and stores the plan's paths, and records what it saw of each entry. The window takes an
/// entry for unchanged if it still looks as recorded, so entries that could not be stored are taken
/// out of the record.
fn walk_and_store(config: &Config, base: Base<'_>, plan: &CapturePlan) -> Result<Pass> {
    let exclude = Exclude::new(&config.files.exclude)?;
    let mut view = View::default();
    let mut skipped = Vec::new();
    let mut walk_seconds = 0.0;
    for (path, ..) in plan.walked_paths() {
        notify::status(&format!("looking at {}", path.display()));
        let walk = Walk::new(&exclude).while_files_change(settled(path, base.clock)?);
        let started = Instant::now();
        view.roots.push(walk.root(path, &At::itself(path), None)?);
        walk_seconds += started.elapsed().as_secs_f64();
        skipped.extend(walk.skipped());
    }
    let entries = view.roots.iter().map(|root| root.tree.count()).sum();
    let record = base.root.at(paths::SEEN);
    view.save(&record)?;
    let stored = store(config, base.root, Files::Frozen(view))?;
    skipped.extend(stored.skipped);
    if let Some(unnamed) = skipped.iter().find(|skipped| skipped.path.as_os_str().is_empty()) {
        bail!("the first pass failed: cannot tell which file was not stored: {unnamed}");
    }
    if !skipped.is_empty() {
        let Some(mut seen) = View::load(&record)? else {
            bail!("{} is missing: another process has removed it", record.display())
        };
        seen.forget(skipped.iter().map(|skipped| skipped.path.as_path()))?;
        seen.save(&record)?;
    }
    Ok(Pass { entries, walk: walk_seconds, bytes_added: stored.bytes_added, ..Pass::default() })
}
