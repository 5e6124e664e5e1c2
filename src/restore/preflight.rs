//! Everything that can be known before GitLab is touched, and the plan that follows from it. Reports
//! all findings, not the first.

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
use crate::runs::restore::{Journal, Request, RestorePlan, State};
use crate::runs::{Manifest, Part};
use crate::stores::space::Needed;
use crate::stores::{self, Asked, Restoration, restoration};
use crate::systemd::Manager;
use crate::values::RunId;

/// Checks, and leaves the plan for the units that follow.
pub async fn preflight(config: &Config, request: &Request) -> Result<()> {
    let mut stores = restoration::all(config);
    let plan = match &request.run {
        Some(run) => {
            let plan = plan(config, &mut stores, request, run).await?;
            for store in &mut stores {
                store.rehearse(&plan).await?;
            }
            plan
        }
        None => {
            let journal = Journal::load(&RootDirectory::host())?
                .context("no restore ended half way: there is nothing to put back")?;
            // Before GitLab is stopped for it.
            if journal.state != State::Staging {
                undo::prove(&mut stores, &journal).await?;
            }
            RestorePlan::of(None)
        }
    };
    write_json(Path::new(paths::RESTORE_PLAN), &plan)
}

/// Has every store plan its part of the run.
async fn plan(
    config: &Config,
    stores: &mut [Box<dyn Restoration + '_>],
    request: &Request,
    run: &RunId,
) -> Result<RestorePlan> {
    let engine = open::in_run(config)?;
    let catalog = Catalog::read_afresh(&*engine, Whose::Run(run), run)?;
    let run = catalog.pick(Some(run))?;
    let manifest = &run.manifest;
    let mut findings = Findings::default();
    findings.add("names", request.check_names(manifest));
    findings.add("gitlab", same_gitlab(manifest, request));
    let mut plan = RestorePlan::of(Some(manifest.id.clone()));
    let manager = Manager::connect().await?;
    for (store, side) in stores::all().into_iter().zip(&mut *stores) {
        if !side.is_wanted(request) {
            continue;
        }
        if let Some(part) = part(run, store.name(), request, &mut findings) {
            let asked = Asked { request, manifest, part, manager: &manager };
            findings.add(store.name(), side.plan(&asked, &mut plan).await);
        }
    }
    findings.add("space", enough(stores, &plan, &*engine, request.path.as_deref()));
    findings.end()?;
    ensure!(!plan.is_empty(), "nothing of run {} is asked for", manifest.id);
    Ok(plan)
}

/// Every reason for which the restore could not succeed.
#[derive(Default)]
struct Findings(Vec<String>);

impl Findings {
    fn add(&mut self, what: &str, result: Result<()>) {
        if let Err(error) = result {
            self.0.push(format!("{what}: {error:#}"));
        }
    }

    fn end(self) -> Result<()> {
        if self.0.is_empty() { Ok(()) } else { bail!("{}", self.0.join("\n")) }
    }
}

/// A part of the run. One that is named must be there, and each must be as the manifest says.
fn part<'a>(
    run: &'a CompleteRun,
    name: &str,
    request: &Request,
    findings: &mut Findings,
) -> Option<&'a Part> {
    let found = run.manifest.parts.iter().find(|part| part.name == name);
    match found {
        Some(part) => findings.add(name, verify::unchanged(run, part).map(drop)),
        None if request.only.iter().any(|only| only == name) => {
            findings.add(name, Err(anyhow!("run {} has no such part", run.manifest.id)));
        }
        None => {}
    }
    found
}

/// Fails if the run is of another version of GitLab than the one here, unless that is asked for.
fn same_gitlab(manifest: &Manifest, request: &Request) -> Result<()> {
    let Some(mismatch) = gitlab_mismatch(manifest) else { return Ok(()) };
    ensure!(
        request.allow_version_mismatch,
        "{mismatch}: install that version, or insist by --allow-version-mismatch"
    );
    tracing::warn!("{mismatch}: restoring all the same, as asked for");
    Ok(())
}

/// How GitLab here differs from the one that was backed up; the edition is in the version (`-ee`).
fn gitlab_mismatch(manifest: &Manifest) -> Option<String> {
    let there = manifest
        .versions
        .iter()
        .find(|component| component.name == "gitlab")
        .map_or("unknown", |gitlab| &gitlab.version);
    let here = manifest::gitlab_version();
    match (there, here.as_str()) {
        ("unknown", "unknown") => {
            tracing::warn!(
                "GitLab's version is known neither here nor in the run: it is not compared"
            );
            None
        }
        (there, here) if there == here => None,
        (there, here) => Some(format!("the run is of GitLab {there}, and here is GitLab {here}")),
    }
}

/// Fails if there is no room for everything new beside the old.
fn enough(
    stores: &[Box<dyn Restoration + '_>],
    plan: &RestorePlan,
    engine: &dyn Engine,
    only: Option<&Path>,
) -> Result<()> {
    let mut needed = Needed::default();
    stores.iter().try_for_each(|store| store.space(plan, engine, only, &mut needed))?;
    needed.check()
}
