//! What was on the host and is not in the run stays, in a directory that no later restore removes.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::host::beneath::Directory;
use crate::runs::restore::Layout;
use crate::stores::moves;

/// Moves what was at `paths` to where it is kept; how many are there now. Some may have been moved
/// before.
pub(super) fn keep(layout: &Layout, paths: &[&PathBuf]) -> Result<usize> {
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
        "{} is not root's: move it away, what is not in the run is kept there",
        layout.kept.display()
    );
    let mut count = 0;
    for path in paths {
        let inside = moves::below(path);
        let (above, name) = (
            inside.parent().unwrap_or(Path::new("")),
            inside.file_name().context("a path without a name is kept")?,
        );
        if aside.look(inside)?.is_some() {
            let from = aside.below(above)?;
            from.rename(name, &kept.make_all(above, Some(&aside))?, name)?;
        }
        count += usize::from(kept.look(inside)?.is_some());
    }
    Ok(count)
}
