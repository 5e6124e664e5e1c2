//! The restore is complete and GitLab answers: the old goes, but for what is not in the run.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::config::Config;
use crate::host::beneath::Directory;
use crate::paths;
use crate::runs::record::read_json;
use crate::runs::restore::{Journal, Layout, State};
use crate::systemd::notify;

use super::{databases, moves, note, undo};

/// Removes what was replaced. Killed at any point, it goes on where it was.
pub async fn finish(config: &Config) -> Result<()> {
    let Some(journal) = Journal::load()? else { return Ok(()) };
    ensure!(journal.state == State::Switched, "the restore is not complete: nothing of what was there before is removed");
    notify::status("removing what was there before");
    let only_here: Vec<PathBuf> = read_json(Path::new(paths::RESTORE_KEPT))?.unwrap_or_default();
    for layout in &journal.plan.layouts {
        let here: Vec<&PathBuf> = only_here.iter().filter(|path| layout.roots.iter().any(|root| path.starts_with(&root.path))).collect();
        let count = keep(layout, &here)?;
        if count > 0 {
            note(format!("{count} paths that were here and are not in the run are kept in {}", layout.kept.display()))?;
        }
        layout.places.aside.remove()?;
        layout.places.staged.remove()?;
    }
    for redis in &journal.plan.redis {
        redis.account.act(|| {
            redis.places.staged.remove()?;
            redis.places.aside.remove()
        })?;
    }
    let names: Vec<&str> = journal.plan.databases.iter().map(|database| database.replaced.as_str()).collect();
    databases::drop(config, &names).await?;
    undo::forget_kept()?;
    Journal::clear()
}

/// Moves what was at `paths` to where it is kept; how many are there now. Some may have been moved before.
fn keep(layout: &Layout, paths: &[&PathBuf]) -> Result<usize> {
    let Some(aside) = layout.places.aside.open_if_there()?.filter(|_| !paths.is_empty()) else { return Ok(0) };
    let (parent, name) = Directory::of(&layout.kept)?;
    let kept = match parent.look(Path::new(&name))? {
        Some(_) => parent.below(Path::new(&name))?,
        None => parent.make(&name, 0o700)?,
    };
    ensure!(
        kept.stat()?.st_uid == rustix::process::geteuid().as_raw(),
        "{} is not root's: move it away, what is not in the run is kept there",
        layout.kept.display()
    );
    let mut count = 0;
    for path in paths {
        let inside = moves::below(path);
        let (above, name) = (inside.parent().unwrap_or(Path::new("")), inside.file_name().context("a path without a name is kept")?);
        if aside.look(inside)?.is_some() {
            let from = aside.below(above)?;
            from.rename(name, &kept.make_all(above, Some(&aside))?, name)?;
        }
        count += usize::from(kept.look(inside)?.is_some());
    }
    Ok(count)
}
