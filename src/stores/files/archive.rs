//! Stores the frozen view and the dumps in the repository, with GitLab up.

use std::path::Path;

use anyhow::{Context, Error, Result, anyhow};
use rustix::fs::FileType;

use crate::config::{Config, EngineName};
use crate::frozen::{At, Exclude, Skipped, View, Walk};
use crate::host::beneath::Directory;
use crate::open;
use crate::paths::{self, RootDirectory};
use crate::repository::{Files, Tolerance, patience};
use crate::runs::parts;
use crate::stores::files::links::Outside;
use crate::systemd::notify;
use crate::volume;

use super::{
    CapturePlan, FILES, PRESYNC, PartDestination, Way, record_left_out, record_skipped, store_live,
    store_part,
};

/// The directory of the staging directory to which the commands of `[[step]]` write, and the part
/// that holds it.
const STEPS: &str = "steps";

/// Stores the files, unless the window has stored them; then the dumps, and the files that the
/// commands of `[[step]]` wrote. `dumped` names the stores that dump into the staging directory.
pub fn store_files_and_dumps(config: &Config, root: &RootDirectory, dumped: &[&str]) -> Result<()> {
    let mut engine = None;
    if config.files.command.is_none() && !parts::is_recorded(root, FILES) {
        let engine = engine.insert(open::in_run(config, root)?);
        store_view(config, PartDestination { engine: &**engine, root })?;
    } else if config.files.command.is_none() && CapturePlan::current(root)?.is_live() {
        record_gaps_of_live_files(config, root)?;
    }
    for name in dumped.iter().copied().chain([STEPS]) {
        let path = root.at(paths::STAGING).join(name);
        if !holds_files(&path)? {
            continue;
        }
        if engine.is_none() {
            engine = Some(open::in_run(config, root)?);
        }
        let Some(engine) = &engine else { continue };
        parts::record(
            root,
            &store_live(config, PartDestination { engine: &**engine, root }, name, &[path])?,
        )?;
    }
    Ok(())
}

/// Records what is missing from files that the window stored live: directories that links lead to
/// and no backup holds, and extended attributes that restic silently renames. The window has no
/// time for this walk. A path that cannot be read now was stored all the same.
fn record_gaps_of_live_files(config: &Config, root: &RootDirectory) -> Result<()> {
    let exclude = Exclude::new(&config.files.exclude)?;
    let walk = Walk::new(&exclude);
    let mut view = View::default();
    for path in &config.files.paths {
        match walk.root(path, &At::itself(path), None) {
            Ok(found) => view.roots.push(found),
            Err(error) => {
                tracing::warn!("cannot check what is left out of {}: {error:#}", path.display())
            }
        }
    }
    if config.repository.engine == EngineName::Restic {
        // The built-in engine leaves the same attributes out.
        let renamed = |skipped: &Skipped| format!("kept under another name by restic: {skipped}");
        let renamed: Vec<String> = walk.attributes_left_out().iter().map(renamed).collect();
        record_left_out(root, renamed.iter())?;
    }
    record_links_outside(config, root, &view)
}

/// Records the links in `view` that lead to directories in no backup.
fn record_links_outside(config: &Config, root: &RootDirectory, view: &View) -> Result<()> {
    let mut outside = Outside::new(&config.files);
    outside.add_links_of(view)?;
    record_left_out(root, outside.describe().iter())
}

/// Stores the frozen view as the files' part. If a snapshot turns out to be damaged afterwards, the
/// stored part is forgotten again.
fn store_view(config: &Config, destination: PartDestination<'_>) -> Result<()> {
    let plan = CapturePlan::current(destination.root)?;
    let view = complete_view(config, destination.root, &plan)?;
    record_links_outside(config, destination.root, &view)?;
    let stored = store_part(
        destination,
        FILES,
        parents(config, &plan),
        Files::Frozen(view),
        Tolerance::None,
        patience::LONG,
    );
    let (part, _) = stored.map_err(|error| with_likely_reason(error, &plan))?;
    let intact = plan.snapshots.iter().try_for_each(|snapshot| {
        let size = &config.files.lvm_snapshot_size;
        volume::volumes(snapshot.kind, size, destination.root).ensure_intact(snapshot)
    });
    if let Err(error) = intact {
        destination.engine.forget(&[part.snapshot], patience::LONG)?;
        return Err(error);
    }
    parts::record(destination.root, &part)
}

/// The view that the window wrote, completed by a walk of the mounted snapshots.
fn complete_view(config: &Config, root: &RootDirectory, plan: &CapturePlan) -> Result<View> {
    let mut view = View::default();
    if plan.walked_paths().next().is_some() {
        let frozen = root.at(paths::FROZEN);
        view = View::load(&frozen)?
            .with_context(|| format!("{} is missing: the capture failed", frozen.display()))?;
    }
    let exclude = Exclude::new(&config.files.exclude)?;
    for capture in &plan.captures {
        let Way::Snapshot { number, inside } = &capture.way else { continue };
        let snapshot = plan
            .snapshots
            .get(*number)
            .with_context(|| format!("the plan has no snapshot {number}"))?;
        notify::status(&format!("looking at {} in {}", capture.path.display(), snapshot.name));
        let walk = Walk::new(&exclude);
        let found = walk.root(
            &capture.path,
            &At { directory: snapshot.at.clone(), inside: inside.clone() },
            None,
        );
        view.roots.push(found.map_err(|error| with_likely_reason(error, plan))?);
        if let Some(skipped) = walk.skipped().first() {
            return Err(with_likely_reason(anyhow!("{skipped}"), plan));
        }
        record_skipped(root, &walk.left_out())?;
    }
    Ok(view)
}

/// The parts whose snapshots are parents of the files' snapshot. Unchanged files of a walked path
/// exist only in the first pass's snapshot, so that one must be a parent.
fn parents(config: &Config, plan: &CapturePlan) -> &'static [&'static str] {
    let has_first_pass = plan.walked_paths().next().is_some() && config.files.presync;
    match (has_first_pass, plan.snapshots.is_empty()) {
        (true, true) => &[PRESYNC],
        (true, false) => &[PRESYNC, FILES],
        (false, _) => &[FILES],
    }
}

/// Adds the likely reason to an EIO or ENOENT from a mounted snapshot: it ran out of space. The
/// unit's sandbox does not allow it to ask the volume manager.
fn with_likely_reason(error: Error, plan: &CapturePlan) -> Error {
    let likely =
        plan.snapshots.iter().filter_map(volume::unreadable).collect::<Vec<_>>().join("; ");
    // Some layers in between keep the text of the error only, so the code is searched in the text.
    let words = format!("{error:#}");
    match ["(os error 5)", "(os error 2)"].iter().any(|code| words.contains(code))
        && !likely.is_empty()
    {
        true => error.context(likely),
        false => error,
    }
}

/// Whether there is any file below `path`.
fn holds_files(path: &Path) -> Result<bool> {
    let (above, name) = Directory::of(path)?;
    if above.look(Path::new(&name))?.is_none() {
        return Ok(false);
    }
    let mut pending = vec![above.below(Path::new(&name))?];
    while let Some(directory) = pending.pop() {
        for (name, kind) in directory.entries()? {
            if kind != FileType::Directory {
                return Ok(true);
            }
            pending.push(directory.below(Path::new(&name))?);
        }
    }
    Ok(false)
}
