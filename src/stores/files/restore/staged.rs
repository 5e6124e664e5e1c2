//! The files of the run, laid out on the file systems where they belong.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::config::Config;
use crate::host::beneath::Directory;
use crate::paths;
use crate::runs::record::write_json;
use crate::systemd::notify;
use crate::values::RawPath;

use crate::stores::restoration::plan;
use crate::stores::{extract, moves};

/// Lays out every path of the plan and finds out what is here and not in the run.
pub fn files(config: &Config) -> Result<()> {
    let plan = plan()?;
    let Some(snapshot) = &plan.files else { return Ok(()) };
    let mut only_here: Vec<PathBuf> = Vec::new();
    for layout in &plan.layouts {
        let staged = layout.places.staged.open()?;
        notify::status(&format!(
            "laying out {} paths in {}",
            layout.roots.len(),
            staged.path().display()
        ));
        lay(
            config,
            snapshot,
            &staged,
            layout.roots.iter().map(|root| root.path.clone()).collect(),
        )?;
        for root in &layout.roots {
            only_here.extend(moves::list_only_live(&root.path, &layout.places.staged)?);
        }
    }
    let ours = |path: &PathBuf| {
        plan.layouts.iter().any(|layout| {
            [&layout.places.staged.path, &layout.places.aside.path, &layout.kept].contains(&path)
        })
    };
    only_here.retain(|path| !ours(path));
    let only_here: Vec<RawPath> = only_here.into_iter().map(RawPath).collect();
    write_json(Path::new(paths::RESTORE_KEPT), &only_here)
}

pub(super) fn lay(
    config: &Config,
    snapshot: &str,
    staged: &Directory,
    paths: Vec<PathBuf>,
) -> Result<()> {
    // By its descriptor: what is around it may belong to others.
    let laid = extract::in_child(config, snapshot, &staged.reachable(), &paths);
    laid.with_context(|| format!("cannot lay out {}", staged.path().display()))
}
