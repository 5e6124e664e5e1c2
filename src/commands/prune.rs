//! `prune`: remove what the retention no longer asks for, or tell what would be removed.

use anyhow::{Result, bail};
use jiff::Timestamp;
use serde::Serialize;

use crate::catalog::{Catalog, Whose};
use crate::config::Config;
use crate::exit::{ALREADY_RUNNING, Exit};
use crate::host::text;
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

/// Prunes; with `dry_run` only tells each run's fate.
pub async fn prune(
    config: &Config,
    dry_run: bool,
    yes_remove: Option<usize>,
    json: bool,
) -> Result<()> {
    if !dry_run {
        refuse_if_unsafe().await?;
    }
    let engine = open::required(config)?;
    let catalog = Catalog::read(&*engine, Whose::Own)?;
    let plan = plan(&config.retention, &catalog, Timestamp::now())?;
    if !dry_run {
        plan.ensure_confirmed(yes_remove)?;
        // A run that has begun meanwhile goes first, and must not find the repository taken when
        // GitLab is down.
        apply(&plan, &*engine, patience::NONE, refuse_if_unsafe).await?;
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

async fn refuse_if_unsafe() -> Result<()> {
    let manager = Manager::connect().await?;
    for (executor, message) in [
        (Unit::Run, "a backup is going on: it prunes by itself when it is complete"),
        // The run that is restored may be one that is to go.
        (Restore::Run.into(), "a restore is going on: wait for it"),
    ] {
        if !manager.state(&executor.to_string()).await?.is_settled() {
            return Err(Exit { code: ALREADY_RUNNING, message: message.to_owned() }.into());
        }
    }
    if let Some(last) = Record::all(&RootDirectory::host())?
        .first()
        .filter(|last| last.outcome != Outcome::Complete)
    {
        bail!("the last run, {}, is not complete: nothing is pruned before one is", last.id);
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
