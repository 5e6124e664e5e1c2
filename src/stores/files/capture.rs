//! Captures the files in the window, for paths without a volume snapshot: walks every entry, and
//! clones or copies the files that changed since the first pass.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::config::Config;
use crate::frozen::{At, Exclude, Staging, Tree, View, Walk};
use crate::host::beneath::KnownDirectory;
use crate::host::limits;
use crate::open;
use crate::paths::{self, RootDirectory};
use crate::runs::parts;
use crate::systemd::notify;

use super::{CapturePlan, FILES, PartDestination, record_skipped, store_live};

/// Captures the files in the window. Notifies systemd as soon as the window may close, and writes
/// the view after that.
///
/// # Errors
/// If anything cannot be read: a capture is complete or has failed.
pub fn capture(config: &Config, root: &RootDirectory) -> Result<()> {
    let plan = CapturePlan::current(root)?;
    if plan.is_live() {
        let engine = open::in_run(config, root)?;
        let destination = PartDestination { engine: &*engine, root };
        parts::record(root, &store_live(config, destination, FILES, &config.files.paths)?)?;
        notify::ready("stored");
        return Ok(());
    }
    let started = Instant::now();
    let view = walk(config, root, &plan)?;
    notify::ready("captured");
    let entries: u64 = view.roots.iter().map(|root| root.tree.count()).sum();
    tracing::info!(
        entries,
        seconds = started.elapsed().as_secs_f64(),
        memory_mib = limits::peak(),
        "captured"
    );
    view.save(&root.at(paths::FROZEN))
}

/// Walks the plan's paths. The content of changed files is cloned to the directory that the plan
/// names for the path; without one, it is copied to a directory in the staging area.
fn walk(config: &Config, root: &RootDirectory, plan: &CapturePlan) -> Result<View> {
    let exclude = Exclude::new(&config.files.exclude)?;
    let mut view = View::default();
    let mut seen = load_first_pass(config, root)?;
    let mut stagings: BTreeMap<PathBuf, Staging> = BTreeMap::new();
    let mut copies: Option<KnownDirectory> = None;
    let mut left_out = Vec::new();
    for (path, how, directory) in plan.walked_paths() {
        let held = match (directory, &copies) {
            (Some(held), _) | (None, Some(held)) => held.clone(),
            (None, None) => {
                let mut new = KnownDirectory::planned(&root.at(paths::PARTS), "changed-")?;
                new.make()?;
                copies.insert(new).clone()
            }
        };
        if !stagings.contains_key(&held.path) {
            stagings.insert(held.path.clone(), Staging::new(&held, how)?);
        }
        let staging = stagings.get(&held.path).context("no staging")?;
        let walk = Walk::new(&exclude).securing(staging);
        let seen = seen.remove(path);
        view.roots.push(walk.root(path, &At::itself(path), seen.as_ref())?);
        let skipped = walk.skipped();
        if !skipped.is_empty() {
            let first: Vec<String> = skipped.iter().take(3).map(ToString::to_string).collect();
            bail!("{} paths could not be captured: {}", skipped.len(), first.join(", "));
        }
        left_out.extend(walk.left_out());
    }
    record_skipped(root, &left_out)?;
    for (directory, staging) in &stagings {
        let (files, bytes) = staging.content();
        tracing::info!(
            directory = %directory.display(),
            files,
            bytes,
            "changed since the first pass"
        );
    }
    Ok(view)
}

/// Loads the trees that the first pass saw, by path. Empty if there was no first pass.
fn load_first_pass(config: &Config, root: &RootDirectory) -> Result<BTreeMap<PathBuf, Tree>> {
    if !config.files.presync {
        return Ok(BTreeMap::new());
    }
    let view = View::load(&root.at(paths::SEEN))?.unwrap_or_default();
    Ok(view.roots.into_iter().map(|root| (root.path, root.tree)).collect())
}
