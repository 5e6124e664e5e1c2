//! Verifies that a run can be restored, as far as that shows without touching live data.

mod repository;

use std::path::Path;

use anyhow::Result;

use crate::accounts;
use crate::catalog::{Catalog, CompleteRun, Whose};
use crate::config::Config;
use crate::finding::Finding;
use crate::host::user;
use crate::paths::RootDirectory;
use crate::repository::Engine;
use crate::stores;
pub use crate::stores::inspection::Depth;
use crate::stores::inspection::Inspection;
use crate::stores::inspection::scratch::Scratch;
pub(crate) use repository::ensure_unchanged;

/// Verifies `run` in a new directory below `scratch`, and reports each finding at once.
///
/// # Errors
/// If the scratch directory cannot be created or removed.
pub async fn verify(
    config: &Config,
    root: &RootDirectory,
    engine: &dyn Engine,
    run: &CompleteRun,
    (depth, scratch): (Depth, &Path),
    report: &mut dyn FnMut(Finding),
) -> Result<()> {
    report(Finding::of("repository", repository::check(engine, root, depth.read_data)));
    report(repository::check_keys(engine));
    // Read the manifest from the repository: the cached copy would hide later damage.
    let id = &run.manifest.id;
    let stored = Catalog::read_afresh(engine, Whose::Run(id), root, id)
        .and_then(|catalog| Ok(catalog.find(id)?.manifest.clone()));
    let manifest = stored.as_ref().unwrap_or(&run.manifest).clone();
    let written = stored.map(|manifest| format!("written {}", manifest.finished));
    report(Finding::of("manifest", written));
    let user = match user::sandbox() {
        Ok(user) => user,
        Err(error) => {
            report(Finding::of("sandbox", Err(error)));
            return Ok(());
        }
    };
    if user.is_none() {
        let words = format!(
            "only root can run programs on untrusted data as {}: they run with your own rights",
            accounts::SANDBOX
        );
        report(Finding::warning("sandbox", words));
    }
    let scratch = Scratch::new(scratch)?;
    let mut inspection = Inspection { config, engine, depth, user, scratch, report };
    for part in &manifest.parts {
        let what = format!("part {}", part.name);
        (inspection.report)(Finding::of(&what, repository::ensure_unchanged(run, part)));
        let all = stores::all();
        let Some(store) = all.iter().find(|store| store.name() == part.name) else { continue };
        let place = inspection.scratch.create_place(&part.name)?;
        // The data is untrusted: an error with one part must not stop the checks of the others.
        if let Err(error) = store.verify(&mut inspection, &manifest, part, &place).await {
            (inspection.report)(Finding::of(&what, Err(error)));
        }
        inspection.scratch.remove_place(&part.name)?;
    }
    inspection.scratch.remove()
}
