//! One file per verb.

pub mod generate;
pub mod helper;
pub mod install;
pub mod key;
pub mod list;
mod place;
pub mod prune;
pub mod restore;
pub mod run;
pub mod status;
pub mod verify;

use anyhow::{Context, Result};

use crate::catalog::{Catalog, CompleteRun};
use crate::values::RunId;

/// The complete run that is asked for, or the newest.
fn pick<'a>(catalog: &'a Catalog, id: Option<&RunId>) -> Result<&'a CompleteRun> {
    let Some(id) = id else {
        return catalog.complete.last().context("there is no complete run in the repository");
    };
    if let Some((_, why)) = catalog.damaged.iter().find(|(run, _)| run == id) {
        anyhow::bail!("{why}");
    }
    let found = catalog.complete.iter().find(|run| run.manifest.id == *id);
    found.with_context(|| format!("there is no complete run {id}: see 'gitlab-backup list'"))
}
