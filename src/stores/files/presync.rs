//! The first pass, with GitLab up: whatever changes meanwhile is the window's to take.

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::frozen::{At, Exclude, View, Walk, settled};
use crate::host::limits;
use crate::open;
use crate::paths;
use crate::repository::{Files, Tolerance, patience};
use crate::runs::budget::Ahead;
use crate::runs::record::write_json;
use crate::systemd::notify;

use super::{CapturePlan, FILES, PRESYNC, store};

/// What a first pass tells of the window to come.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Pass {
    /// Entries that the window will look at.
    pub entries: u64,
    /// How long looking at them took, seconds.
    pub walk: f64,
    /// How long the whole took, seconds.
    pub seconds: f64,
    /// Bytes that the repository did not have.
    pub bytes_added: u64,
}

impl Pass {
    /// What it tells of the window, `since` seconds after the last run: as much is expected to
    /// change while it lasted as did before.
    pub fn ahead(&self, since: Option<f64>) -> Ahead {
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

/// Stores everything that the window will only compare, and has every file system written out, so
/// that the window need not wait for that.
pub fn presync(config: &Config) -> Result<()> {
    let plan = CapturePlan::current()?;
    let started = Instant::now();
    let mut pass = Pass::default();
    if plan.live() {
        let engine = open::in_run(config)?;
        let files = Files::Live { paths: &config.files.paths, exclude: &config.files.exclude };
        pass.bytes_added = store(
            &*engine,
            PRESYNC,
            &[FILES, PRESYNC],
            files,
            Tolerance::Changing,
            patience::LONG,
        )?
        .1
        .bytes_added;
    } else if plan.walked().next().is_some() {
        pass = first_look(config, &plan)?;
    }
    for capture in &plan.captures {
        settled(&capture.path)?;
    }
    pass.seconds = started.elapsed().as_secs_f64();
    tracing::info!(
        entries = pass.entries,
        seconds = pass.seconds,
        memory_mib = limits::peak(),
        "first pass"
    );
    write_json(Path::new(paths::PASS), &pass)
}

fn first_look(config: &Config, plan: &CapturePlan) -> Result<Pass> {
    let exclude = Exclude::new(&config.files.exclude)?;
    let mut view = View::default();
    let mut left = Vec::new();
    let mut walk_seconds = 0.0;
    for (path, ..) in plan.walked() {
        notify::status(&format!("looking at {}", path.display()));
        let walk = Walk::new(&exclude).while_files_change(settled(path)?);
        let started = Instant::now();
        view.roots.push(walk.root(path, &At::itself(path), None)?);
        walk_seconds += started.elapsed().as_secs_f64();
        left.extend(walk.skipped());
    }
    let entries = view.roots.iter().map(|root| root.tree.count()).sum();
    view.save(Path::new(paths::SEEN))?;
    let engine = open::in_run(config)?;
    let (_, stored) = store(
        &*engine,
        PRESYNC,
        &[FILES, PRESYNC],
        Files::Frozen(view),
        Tolerance::Changing,
        patience::LONG,
    )?;
    left.extend(stored.skipped);
    if let Some(unnamed) = left.iter().find(|skipped| skipped.path.as_os_str().is_empty()) {
        bail!("the first pass is of no use: {unnamed}");
    }
    if !left.is_empty() {
        let Some(mut seen) = View::load(Path::new(paths::SEEN))? else {
            bail!("{} is gone", paths::SEEN)
        };
        seen.forget(left.iter().map(|skipped| skipped.path.as_path()))?;
        seen.save(Path::new(paths::SEEN))?;
    }
    Ok(Pass { entries, walk: walk_seconds, bytes_added: stored.bytes_added, ..Pass::default() })
}
