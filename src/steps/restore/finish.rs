//! The restore is complete and GitLab answers: the old goes, but for what is not in the run.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::config::Config;
use crate::paths;
use crate::runs::record::read_json;
use crate::runs::restore::{Journal, Layout, State};
use crate::systemd::notify;

use super::{moves, note, redis, switch, undo};

/// Removes what was replaced. Killed at any point, it goes on where it was.
pub async fn finish(config: &Config) -> Result<()> {
    let Some(journal) = Journal::load()? else { return Ok(()) };
    ensure!(journal.state == State::Switched, "the restore is not complete: nothing of what was there before is removed");
    notify::status("removing what was there before");
    let only_here: Vec<PathBuf> = read_json(Path::new(paths::RESTORE_KEPT))?.unwrap_or_default();
    for layout in &journal.plan.layouts {
        let mut count = 0;
        for path in only_here.iter().filter(|path| layout.roots.iter().any(|root| path.starts_with(&root.path))) {
            count += usize::from(keep(layout, path)?);
        }
        if count > 0 {
            note(format!("{count} paths that were here and are not in the run are kept in {}", layout.kept.display()))?;
        }
        undo::remove(&layout.aside)?;
        undo::remove(&layout.staged)?;
    }
    for redis in &journal.plan.redis {
        let (staged, aside) = redis::directories(&journal.plan, redis);
        undo::remove(&staged)?;
        undo::remove(&aside)?;
    }
    let names: Vec<&str> = journal.plan.databases.iter().map(|database| database.replaced.as_str()).collect();
    switch::drop_databases(config, &names).await?;
    undo::forget_kept()?;
    Journal::clear()
}

/// Moves what was at `path` to where it is kept. False if it was moved before.
fn keep(layout: &Layout, path: &Path) -> Result<bool> {
    let (aside, kept) = (moves::below(&layout.aside, path), moves::below(&layout.kept, path));
    if aside.symlink_metadata().is_err() {
        return Ok(kept.symlink_metadata().is_ok());
    }
    moves::make_parents(&kept, Some(&aside))?;
    std::fs::rename(&aside, &kept).with_context(|| format!("cannot move {} to {}", aside.display(), kept.display()))?;
    Ok(true)
}
