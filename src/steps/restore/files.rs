//! The files of the run, laid out on the file systems where they belong.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::config::Config;
use crate::paths;
use crate::runs::record::write_json;
use crate::runs::restore::Layout;
use crate::steps::extract;
use crate::systemd::notify;

use super::{moves, note, plan};

/// Lays out every path of the plan and finds out what is here and not in the run.
pub fn files(config: &Config) -> Result<()> {
    let plan = plan()?;
    let Some(snapshot) = &plan.files else { return Ok(()) };
    let mut only_here: Vec<PathBuf> = Vec::new();
    for layout in &plan.layouts {
        notify::status(&format!("laying out {} paths in {}", layout.roots.len(), layout.staged.display()));
        lay(config, snapshot, layout)?;
        for root in &layout.roots {
            moves::only_in(&root.path, &moves::below(&layout.staged, &root.path), &mut only_here)?;
        }
    }
    only_here.retain(|path| !plan.layouts.iter().any(|layout| [&layout.staged, &layout.aside, &layout.kept].contains(&path)));
    write_json(Path::new(paths::RESTORE_KEPT), &only_here)
}

/// Lays out the configuration that is not put in place, and tells where it differs.
pub fn beside(config: &Config) -> Result<()> {
    let plan = plan()?;
    let (Some(snapshot), Some(layout)) = (&plan.files, &plan.beside) else { return Ok(()) };
    if layout.staged.exists() {
        fs::remove_dir_all(&layout.staged).with_context(|| format!("cannot remove {}", layout.staged.display()))?;
    }
    lay(config, snapshot, layout)?;
    for root in &layout.roots {
        let mut differences = Vec::new();
        differ(&root.path, &moves::below(&layout.staged, &root.path), &mut differences);
        if !differences.is_empty() {
            // Names only: what differs may be a secret.
            note(format!(
                "{} is not as in the run ({}); what the run has is in {} ('diff -r' shows it, --with-config puts it in place)",
                root.path.display(),
                differences.join(", "),
                moves::below(&layout.staged, &root.path).display()
            ))?;
        }
    }
    Ok(())
}

fn lay(config: &Config, snapshot: &str, layout: &Layout) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&layout.staged)
        .with_context(|| format!("cannot make {}", layout.staged.display()))?;
    let paths: Vec<PathBuf> = layout.roots.iter().map(|root| root.path.clone()).collect();
    extract::in_child(config, snapshot, &layout.staged, &paths).with_context(|| format!("cannot lay out {}", layout.staged.display()))
}

/// Where `live` is not what `run` is.
fn differ(live: &Path, run: &Path, found: &mut Vec<String>) {
    match (live.symlink_metadata(), run.symlink_metadata()) {
        (Err(_), _) => found.push(format!("{} is missing", live.display())),
        (_, Err(_)) => found.push(format!("{} is not in the run", live.display())),
        (Ok(here), Ok(there)) if here.is_dir() && there.is_dir() => {
            let names = [moves::entries(live), moves::entries(run)].into_iter().filter_map(Result::ok).flatten();
            let names: std::collections::BTreeSet<_> = names.collect();
            names.iter().for_each(|name| differ(&live.join(name), &run.join(name), found));
        }
        (Ok(here), Ok(_)) => {
            let same = if here.is_symlink() {
                fs::read_link(live).ok() == fs::read_link(run).ok()
            } else {
                fs::read(live).ok() == fs::read(run).ok()
            };
            if !same {
                found.push(format!("{} differs", live.display()));
            }
        }
    }
}
