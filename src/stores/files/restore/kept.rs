//! Keeps the files that were on the host and are not in the run, in a directory that no later
//! restore removes.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::host::beneath::Directory;
use crate::runs::restore::StagingLayout;
use crate::stores::moves;

/// Moves the old files at `paths` to the directory in which they are kept. Returns how many of them
/// are there now, with those that an interrupted restore has already moved.
pub(super) fn keep(layout: &StagingLayout, paths: &[&PathBuf]) -> Result<usize> {
    let Some(aside) = layout.places.aside.open_if_there()?.filter(|_| !paths.is_empty()) else {
        return Ok(0);
    };
    let (parent, name) = Directory::of(&layout.kept)?;
    let kept = match parent.look(Path::new(&name))? {
        Some(_) => parent.below(Path::new(&name))?,
        None => parent.make(&name, 0o700)?,
    };
    ensure!(
        kept.stat()?.st_uid == rustix::process::geteuid().as_raw(),
        "{} does not belong to root: rename it, the files that are not in the run are kept there",
        layout.kept.display()
    );
    let mut count = 0;
    for path in paths {
        let inside = moves::below(path);
        let (above, name) = (
            inside.parent().unwrap_or(Path::new("")),
            inside.file_name().with_context(|| format!("{} has no name", path.display()))?,
        );
        if aside.look(inside)?.is_some() {
            let from = aside.below(above)?;
            from.rename(name, &kept.make_all(above, Some(&aside))?, name)?;
        }
        count += usize::from(kept.look(inside)?.is_some());
    }
    Ok(count)
}
