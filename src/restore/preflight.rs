//! Checks a restore before GitLab is stopped, and plans it. Reports all errors, not only the first.

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::undo;
use crate::catalog::{Catalog, CompleteRun, Whose};
use crate::config::Config;
use crate::open;
use crate::paths::{self, RootDirectory};
use crate::repository::Engine;
use crate::run::{manifest, verify};
use crate::runs::record::write_json;
use crate::runs::restore::{Request, RestoreJournal, RestorePlan, State};
use crate::runs::{Manifest, Part};
use crate::stores::space::Needed;
use crate::stores::{self, Asked, Restoration, restoration};
use crate::systemd::ServiceManager;
use crate::values::RunId;

/// Checks the request, and writes the plan for the units that follow. For an undo, checks that the
/// old data can be put back.
pub async fn preflight<M: ServiceManager>(
    config: &Config,
    request: &Request,
    root: &RootDirectory,
    connect: impl AsyncFnOnce() -> Result<M>,
) -> Result<()> {
    let mut stores = restoration::all(config, root);
    let plan = match &request.run {
        Some(run) => {
            let plan = plan(config, &mut stores, (request, run), root, connect).await?;
            for store in &mut stores {
                store.rehearse(&plan).await?;
            }
            plan
        }
        None => {
            let journal = RestoreJournal::load(root)?
                .context("no restore ended half way, so there is nothing to put back")?;
            if journal.state != State::Staging {
                undo::ensure_possible(&mut stores, &journal).await?;
            }
            RestorePlan::of(None)
        }
    };
    write_json(&root.at(paths::RESTORE_PLAN), &plan)
}

/// Asks every store to plan its side of the restore.
async fn plan<M: ServiceManager>(
    config: &Config,
    stores: &mut [Box<dyn Restoration + '_>],
    (request, run): (&Request, &RunId),
    root: &RootDirectory,
    connect: impl AsyncFnOnce() -> Result<M>,
) -> Result<RestorePlan> {
    let engine = open::in_run(config, root)?;
    let catalog = Catalog::read_afresh(&*engine, Whose::Run(run), root, run)?;
    let run = catalog.find(run)?;
    let manifest = &run.manifest;
    let mut findings = Findings::default();
    findings.add("names", request.check_names(manifest));
    findings.add("gitlab", ensure_same_version(manifest, request));
    let mut plan = RestorePlan::of(Some(manifest.id.clone()));
    let manager = connect().await?;
    for (store, side) in stores::all().into_iter().zip(&mut *stores) {
        if !side.is_wanted(request) {
            continue;
        }
        if let Some(part) = find_part(run, store.name(), request, &mut findings) {
            let asked = Asked { request, manifest, part, manager: &manager };
            findings.add(store.name(), side.plan(&asked, &mut plan).await);
        }
    }
    findings.add("space", ensure_space(stores, &plan, &*engine, request.path.as_deref()));
    findings.into_result()?;
    ensure!(!plan.is_empty(), "the request selects nothing of run {}", manifest.id);
    Ok(plan)
}

/// The reasons why the restore could not succeed, in words.
#[derive(Default)]
struct Findings(Vec<String>);

impl Findings {
    fn add(&mut self, what: &str, result: Result<()>) {
        if let Err(error) = result {
            self.0.push(format!("{what}: {error:#}"));
        }
    }

    fn into_result(self) -> Result<()> {
        if self.0.is_empty() { Ok(()) } else { bail!("{}", self.0.join("\n")) }
    }
}

/// Finds a part of the run. Adds an error if it is missing and the request names it, or if its
/// snapshot is not the one in the manifest.
fn find_part<'a>(
    run: &'a CompleteRun,
    name: &str,
    request: &Request,
    findings: &mut Findings,
) -> Option<&'a Part> {
    let found = run.manifest.part(name);
    match found {
        Some(part) => findings.add(name, verify::ensure_unchanged(run, part).map(drop)),
        None if request.only.iter().any(|only| only == name) => {
            findings.add(name, Err(anyhow!("run {} has no such part", run.manifest.id)));
        }
        None => {}
    }
    found
}

/// Fails if the run is of another version of GitLab than the installed one, unless the request
/// allows it.
fn ensure_same_version(manifest: &Manifest, request: &Request) -> Result<()> {
    let Some(mismatch) = gitlab_mismatch(manifest) else { return Ok(()) };
    ensure!(
        request.allow_version_mismatch,
        "{mismatch}: install that version, or pass --allow-version-mismatch"
    );
    tracing::warn!("{mismatch}: restoring it because of --allow-version-mismatch");
    Ok(())
}

/// The difference between the installed version of GitLab and the run's, if there is one. The
/// version includes the edition (`-ee`).
fn gitlab_mismatch(manifest: &Manifest) -> Option<String> {
    let there = manifest.version("gitlab").unwrap_or("unknown");
    let here = manifest::gitlab_version();
    match (there, here.as_str()) {
        ("unknown", "unknown") => {
            tracing::warn!(
                "cannot compare GitLab's versions: neither that of this host nor that of the run \
                 is known"
            );
            None
        }
        (there, here) if there == here => None,
        (there, here) => Some(format!("the run is of GitLab {there}, and here is GitLab {here}")),
    }
}

/// Fails if a file system has not enough space for the new data beside the old.
fn ensure_space(
    stores: &[Box<dyn Restoration + '_>],
    plan: &RestorePlan,
    engine: &dyn Engine,
    only: Option<&Path>,
) -> Result<()> {
    let mut needed = Needed::default();
    stores.iter().try_for_each(|store| store.space(plan, engine, only, &mut needed))?;
    needed.check()
}
