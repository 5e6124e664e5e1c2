//! `prune`: removes the runs that the retention does not keep, or prints what it would remove.

use anyhow::{Result, bail};
use jiff::Timestamp;
use serde::Serialize;

use crate::catalog::{Catalog, Whose};
use crate::config::Config;
use crate::exit::{ALREADY_RUNNING, Exit};
use crate::host::text;
use crate::machine::Base;
use crate::open;
use crate::paths::RootDirectory;
use crate::repository::patience;
use crate::run::prune::{Doubt, PrunePlan, apply, plan};
use crate::runs::{Outcome, Record};
use crate::systemd::{Manager, ServiceManager};
use crate::units::{Restore, Unit};
use crate::{note, say};

/// The JSON of `prune`: fields are added, never renamed.
#[derive(Serialize)]
struct Row<'a> {
    id: &'a str,
    complete: bool,
    keep: bool,
    reasons: &'a [&'static str],
}

/// Prunes; with `dry_run` only prints what would be kept and removed.
pub async fn prune(
    config: &Config,
    dry_run: bool,
    yes_remove: Option<usize>,
    json: bool,
) -> Result<()> {
    if !dry_run {
        ensure_safe().await?;
    }
    let root = &RootDirectory::host();
    let base = Base::host(root);
    let engine = open::required(config, root)?;
    let catalog = Catalog::read(&*engine, Whose::Own, root)?;
    let plan = plan(&config.retention, &catalog, base.clock.now())?;
    if !dry_run {
        plan.ensure_confirmed(yes_remove)?;
        // A run that has started meanwhile has priority: it must not wait for the repository while
        // GitLab is down.
        apply(&plan, &*engine, base, patience::NONE, ensure_safe).await?;
    }
    print(&plan, dry_run, json)?;
    if let Some(others) = catalog.of_others() {
        note!("{others}");
    }
    if let (true, Some(Doubt::Few(words) | Doubt::Many(words))) = (dry_run, plan.doubt()) {
        tracing::warn!("{words}");
    }
    Ok(())
}

/// Fails if a backup or a restore is running, or if the last run is not complete.
async fn ensure_safe() -> Result<()> {
    let manager = Manager::connect().await?;
    for (executor, message) in [
        (Unit::Run, "a backup is going on: it prunes when it is complete"),
        // The restored run may be one that would be removed.
        (Restore::Run.into(), "a restore is going on: wait for it"),
    ] {
        if !manager.state(&executor.to_string()).await?.is_settled() {
            return Err(Exit { code: ALREADY_RUNNING, message: message.to_owned() }.into());
        }
    }
    if let Some(last) = Record::all(&RootDirectory::host(), Timestamp::now())?
        .first()
        .filter(|last| last.outcome != Outcome::Complete)
    {
        bail!("the last run, {}, is not complete: nothing is pruned before a run is", last.id);
    }
    Ok(())
}

fn print(plan: &PrunePlan, dry_run: bool, json: bool) -> Result<()> {
    let reasons = ["not complete"];
    let leftovers = plan.leftovers.iter().map(|run| Row {
        id: run.as_str(),
        complete: false,
        keep: false,
        reasons: &reasons,
    });
    let fates = plan.fates.iter().map(|fate| Row {
        id: fate.run.as_str(),
        complete: true,
        keep: fate.keep,
        reasons: &fate.reasons,
    });
    let rows: Vec<Row<'_>> = leftovers.chain(fates).collect();
    if json {
        text::out(&text::json(&rows)?);
        return Ok(());
    }
    for row in &rows {
        let word = match (row.keep, dry_run) {
            (true, _) => "keep",
            (false, true) => "would remove",
            (false, false) => "removed",
        };
        say!("{:<22} {word:<13} {}", row.id, row.reasons.join(", "));
    }
    if rows.is_empty() {
        say!("there are no runs of this host in the repository");
    }
    Ok(())
}
