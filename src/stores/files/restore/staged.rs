//! Extracts the files of the run to the staging directories of the plan.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::config::Config;
use crate::host::beneath::Directory;
use crate::paths::{self, RootDirectory};
use crate::runs::record::write_json;
use crate::runs::restore::{Root, StagingLayout};
use crate::systemd::notify;
use crate::values::RawPath;

use crate::stores::restoration::plan;
use crate::stores::{extract, moves};

/// Extracts every path of the plan, on each file system (a layout) to a directory there.
pub fn stage_files(config: &Config, root: &RootDirectory) -> Result<()> {
    let plan = plan(root)?;
    let Some(snapshot) = &plan.files else { return Ok(()) };
    for layout in &plan.layouts {
        let staged = layout.places.staged.open()?;
        notify::status(&format!(
            "extracting {} paths to {}",
            layout.roots.len(),
            staged.path().display()
        ));
        extract(
            config,
            snapshot,
            &staged,
            layout.roots.iter().map(|root| root.path.clone()).collect(),
        )?;
    }
    Ok(())
}

/// Records the live paths that are not in the run: the end of the restore keeps them. GitLab may
/// have made some of them until it was stopped.
pub(super) fn record_kept(layouts: &[StagingLayout], root: &RootDirectory) -> Result<()> {
    let mut only_here: Vec<PathBuf> = Vec::new();
    for layout in layouts {
        for Root { path, .. } in &layout.roots {
            only_here.extend(moves::list_only_live(path, &layout.places.staged)?);
        }
    }
    // The directories of the restore itself are among the live paths.
    let is_own_directory = |path: &PathBuf| {
        layouts.iter().any(|layout| {
            [&layout.places.staged.path, &layout.places.aside.path, &layout.kept].contains(&path)
        })
    };
    only_here.retain(|path| !is_own_directory(path));
    let only_here: Vec<RawPath> = only_here.into_iter().map(RawPath).collect();
    write_json(&root.at(paths::RESTORE_KEPT), &only_here)
}

/// Extracts `paths` of the snapshot to the directory `staged`.
pub(super) fn extract(
    config: &Config,
    snapshot: &str,
    staged: &Directory,
    paths: Vec<PathBuf>,
) -> Result<()> {
    // By its descriptor: another account may be able to rename the directories above it.
    let extracted = extract::in_child(config, snapshot, &staged.reachable(), &paths);
    extracted.with_context(|| format!("cannot extract to {}", staged.path().display()))
}
