//! A restore, one file per unit: everything new is laid out beside the old with nothing live
//! changed, then put in place by renames.

mod databases;
mod dumps;
mod files;
mod finish;
mod guard;
mod moves;
mod postgresql;
mod preflight;
mod redis;
mod rehearsal;
mod switch;
mod undo;

use std::path::Path;

use anyhow::{Context, Result};

use crate::host::{own, secret};
use crate::paths::{self, RootDirectory};
use crate::runs::Part;
use crate::runs::record::{read_json, write_json};
use crate::runs::restore::RestorePlan;
use crate::units::render::credential;

pub use dumps::dumps;
pub use files::{beside, files};
pub use finish::finish;
pub use guard::guard;
pub use postgresql::load;
pub use preflight::preflight;
pub use redis::units as redis_units;
pub use switch::switch;
pub use undo::{undo, unstage};

/// The directory of what outlives a restore that dies.
pub fn begin() -> Result<()> {
    own::make_closed(paths::RESTORE)
}

/// What preflight planned; for units that are not root it is a credential.
pub fn plan() -> Result<RestorePlan> {
    let path =
        secret::given(credential::RESTORE_PLAN).unwrap_or_else(|| paths::RESTORE_PLAN.into());
    read_json(&path)?.context("nothing is planned: this helper is started by its unit only")
}

/// What the person who restores should know when it is done.
pub fn notes(root: &RootDirectory) -> Result<Vec<String>> {
    Ok(read_json(&root.at(paths::RESTORE_NOTES))?.unwrap_or_default())
}

fn note(text: String) -> Result<()> {
    tracing::warn!("{text}");
    let mut all = notes(&RootDirectory::host())?;
    all.push(text);
    write_json(Path::new(paths::RESTORE_NOTES), &all)
}

/// The only directory of a part of dumps, as it is laid out below the dumps' place.
fn dump_directory(part: &Part) -> Result<std::path::PathBuf> {
    let path = part
        .paths
        .first()
        .with_context(|| format!("part '{}' of the run has no path", part.name))?;
    Ok(Path::new(paths::RESTORE_DUMPS).join(moves::below(path)))
}
