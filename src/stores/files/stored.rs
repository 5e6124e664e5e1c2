//! The frozen view goes into the repository, and the dumps with it. GitLab is up.

use std::path::Path;

use anyhow::{Context, Error, Result, anyhow};
use rustix::fs::FileType;

use crate::config::{Config, EngineName};
use crate::frozen::{At, Exclude, Skipped, View, Walk};
use crate::host::beneath::Directory;
use crate::open;
use crate::paths;
use crate::repository::{Engine, Files, Tolerance, patience};
use crate::stores::files::links::Outside;
use crate::systemd::notify;
use crate::volume;

use super::{CapturePlan, FILES, PARTS, PRESYNC, Way, leave_out, leave_word, live, store, tell};

/// The files, where the window did not store them itself, the dumps, and what own commands left for
/// the run.
pub fn stored(config: &Config) -> Result<()> {
    let mut engine = None;
    if config.files.command.is_none() && !told(FILES) {
        let engine = engine.insert(open::in_run(config)?);
        frozen(config, &**engine)?;
    } else if config.files.command.is_none() && CapturePlan::current()?.live() {
        looked_at(config)?;
    }
    for name in ["postgresql", "redis", "steps"] {
        let path = Path::new(paths::STAGING).join(name);
        if !holds_files(&path)? {
            continue;
        }
        if engine.is_none() {
            engine = Some(open::in_run(config)?);
        }
        let Some(engine) = &engine else { continue };
        tell(&live(config, &**engine, name, &[path])?)?;
    }
    Ok(())
}

/// Leaves word of what the window has stored otherwise than it looks: links to directories that
/// nobody saves, and attributes whose names restic changes without a word. What cannot be looked at
/// any more was stored.
fn looked_at(config: &Config) -> Result<()> {
    let exclude = Exclude::new(&config.files.exclude)?;
    let walk = Walk::new(&exclude);
    let mut view = View::default();
    for path in &config.files.paths {
        match walk.root(path, &At::itself(path), None) {
            Ok(root) => view.roots.push(root),
            Err(error) => {
                tracing::warn!("what is left out of {} is not known: {error:#}", path.display())
            }
        }
    }
    if config.repository.engine == EngineName::Restic {
        // Where ours leaves them out.
        let renamed = |skipped: &Skipped| format!("kept under another name by restic: {skipped}");
        leave_word(walk.attributes_left_out().iter().map(renamed).collect::<Vec<_>>().iter())?;
    }
    links_outside(config, &view)
}

/// Leaves word of the links in `view` to directories that nobody saves.
fn links_outside(config: &Config, view: &View) -> Result<()> {
    let mut outside = Outside::of(&config.files);
    outside.look(view)?;
    leave_word(outside.told().iter())
}

/// Whether a part is stored already: by the window, or by an attempt before this one.
fn told(part: &str) -> bool {
    Path::new(PARTS).join(format!("{part}.json")).exists()
}

fn frozen(config: &Config, engine: &dyn Engine) -> Result<()> {
    let plan = CapturePlan::current()?;
    let mut view = View::default();
    if plan.walked().next().is_some() {
        view = View::load(Path::new(paths::FROZEN))?.with_context(|| {
            format!("{} is not there: the capture did not end well", paths::FROZEN)
        })?;
    }
    let exclude = Exclude::new(&config.files.exclude)?;
    for capture in &plan.captures {
        let Way::Snapshot { number, inside } = &capture.way else { continue };
        let snapshot = plan.snapshots.get(*number).context("the plan has no such snapshot")?;
        notify::status(&format!("looking at {} in {}", capture.path.display(), snapshot.name));
        let walk = Walk::new(&exclude);
        let root = walk.root(
            &capture.path,
            &At { directory: snapshot.at.clone(), inside: inside.clone() },
            None,
        );
        view.roots.push(root.map_err(|error| unreadable(error, &plan))?);
        if let Some(skipped) = walk.skipped().first() {
            return Err(unreadable(anyhow!("{skipped}"), &plan));
        }
        leave_out(&walk.left_out())?;
    }
    links_outside(config, &view)?;
    let snapshots = !plan.snapshots.is_empty();
    // What is unchanged since the first pass is there, and nothing else need be.
    let parents: &[&str] = match (plan.walked().next().is_some() && config.files.presync, snapshots)
    {
        (true, false) => &[PRESYNC],
        (true, true) => &[PRESYNC, FILES],
        (false, _) => &[FILES],
    };
    let stored =
        store(engine, FILES, parents, Files::Frozen(view), Tolerance::None, patience::LONG);
    let (part, _) = stored.map_err(|error| unreadable(error, &plan))?;
    let intact = plan.snapshots.iter().try_for_each(|snapshot| {
        volume::volumes(snapshot.kind, &config.files.lvm_snapshot_size).ensure_intact(snapshot)
    });
    if let Err(error) = intact {
        engine.forget(&[part.snapshot], patience::LONG)?;
        return Err(error);
    }
    tell(&part)
}

/// An input or output error, or that there is nothing any more, has a likely reason, which this
/// unit's sandbox keeps it from asking for.
fn unreadable(error: Error, plan: &CapturePlan) -> Error {
    let likely =
        plan.snapshots.iter().filter_map(volume::unreadable).collect::<Vec<_>>().join("; ");
    // Some layers between keep only the words.
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
