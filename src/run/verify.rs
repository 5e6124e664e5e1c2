//! Whether a run could be restored: everything that can be found out without touching what is live.

mod repository;

use std::path::Path;

use anyhow::Result;

use crate::accounts;
use crate::catalog::{Catalog, CompleteRun, Whose};
use crate::config::Config;
use crate::finding::Finding;
use crate::host::user;
use crate::repository::Engine;
use crate::stores;
pub use crate::stores::inspection::Depth;
use crate::stores::inspection::Inspection;
use crate::stores::inspection::scratch::Scratch;
pub(crate) use repository::unchanged;

/// Verifies `run` in a directory of its own below `scratch`, and tells each finding as it comes.
///
/// # Errors
/// If there is no place to work in.
pub async fn verify(
    config: &Config,
    engine: &dyn Engine,
    run: &CompleteRun,
    (depth, scratch): (Depth, &Path),
    tell: &mut dyn FnMut(Finding),
) -> Result<()> {
    tell(Finding::of("repository", repository::check(engine, depth.read_data)));
    tell(repository::keys(engine));
    // What was read of it once is kept, and would hide what has become of it since.
    let id = &run.manifest.id;
    let stored = Catalog::read_afresh(engine, Whose::Run(id), id)
        .and_then(|catalog| Ok(catalog.pick(Some(id))?.manifest.clone()));
    let manifest = stored.as_ref().unwrap_or(&run.manifest).clone();
    tell(Finding::of("manifest", stored.map(|manifest| format!("written {}", manifest.finished))));
    let user = match user::sandbox() {
        Ok(user) => user,
        Err(error) => {
            tell(Finding::of("sandbox", Err(error)));
            return Ok(());
        }
    };
    if user.is_none() {
        let words = format!(
            "only root can look at what others made as {}: it is looked at with your own rights",
            accounts::SANDBOX
        );
        tell(Finding::warning("sandbox", words));
    }
    let scratch = Scratch::new(scratch)?;
    let mut inspection = Inspection { config, engine, depth, user, scratch, report: tell };
    for part in &manifest.parts {
        let what = format!("part {}", part.name);
        (inspection.report)(Finding::of(&what, repository::unchanged(run, part)));
        let all = stores::all();
        let Some(store) = all.iter().find(|store| store.name() == part.name) else { continue };
        let place = inspection.scratch.create_place(&part.name)?;
        // What is in it is other people's: it ends nothing but the look at itself.
        if let Err(error) = store.verify(&mut inspection, &manifest, part, &place).await {
            (inspection.report)(Finding::of(&what, Err(error)));
        }
        inspection.scratch.remove_place(&part.name)?;
    }
    inspection.scratch.remove()
}
