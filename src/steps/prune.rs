//! Retention: whole runs, complete ones only, and what failed runs left behind.

use std::time::Duration;

use anyhow::{Result, bail};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::catalog::{Catalog, MANIFEST, Whose};
use crate::config::{Config, Retention};
use crate::repository::retention::{self, Fate};
use crate::repository::{Engine, Snapshot, patience};
use crate::runs::{Outcome, Record};
use crate::systemd::notify;
use crate::values::RunId;

use super::open;

/// What a failed run left is kept for so long: the next run uses its data again.
const LEFTOVER_AGE: SignedDuration = SignedDuration::from_hours(24);

/// By how much a host's clock may be behind another's that ran before.
const CLOCK: SignedDuration = SignedDuration::from_hours(1);

/// What is to be removed.
#[derive(Debug)]
pub struct Plan {
    /// Every complete run, newest first.
    pub fates: Vec<Fate>,
    /// Runs that never were complete and are old enough to go.
    pub leftovers: Vec<RunId>,
    /// The snapshots to remove, in this order: a manifest before the parts that it vouches for.
    snapshots: Vec<String>,
}

impl Plan {
    /// The snapshots to remove, in their order.
    pub fn snapshots(&self) -> &[String] {
        &self.snapshots
    }
}

/// Decides, by the runs alone. Fails if a manifest cannot be read: what is not known is not judged.
pub fn plan(policy: &Retention, catalog: &Catalog, now: Timestamp) -> Result<Plan> {
    if !catalog.damaged.is_empty() {
        let why: Vec<&str> = catalog.damaged.iter().map(|(_, why)| why.as_str()).collect();
        bail!("nothing is pruned while a manifest cannot be read: {}", why.join("; "));
    }
    for (_, why) in &catalog.broken {
        tracing::warn!("{why}: this run is not judged");
    }
    let runs = catalog.complete.iter().map(|run| (run.manifest.id.clone(), run.manifest.started));
    // By a clock that was wrong. It would be the newest for ever, and what is judged by the newest would go.
    let (ahead, runs): (Vec<_>, Vec<_>) = runs.partition(|(_, started)| started.duration_since(now) > CLOCK);
    let mut fates = retention::decide(policy, &runs, &TimeZone::system());
    for (run, started) in ahead.into_iter().rev() {
        tracing::warn!("run {run} is dated {started}, which is not yet: it stays, and does not count for the others");
        fates.insert(0, Fate { run, keep: true, reasons: vec!["dated in the future"] });
    }
    let mut leftovers = Vec::new();
    let mut snapshots = Vec::new();
    for (run, left) in &catalog.incomplete {
        if left.iter().all(|snapshot| now.duration_since(snapshot.time) > LEFTOVER_AGE) {
            leftovers.push(run.clone());
            snapshots.extend(left.iter().map(|snapshot| snapshot.id.clone()));
        }
    }
    for fate in fates.iter().filter(|fate| !fate.keep) {
        for run in catalog.complete.iter().filter(|run| run.manifest.id == fate.run) {
            let (manifest, parts): (Vec<&Snapshot>, Vec<&Snapshot>) = run.snapshots.iter().partition(|snapshot| snapshot.part == MANIFEST);
            snapshots.extend(manifest.into_iter().chain(parts).map(|snapshot| snapshot.id.clone()));
        }
    }
    Ok(Plan { fates, leftovers, snapshots })
}

/// Removes what `plan` says, one snapshot after the other, and then the data that nothing needs any more. Killed at any point, it leaves
/// runs that are whole or no longer listed. Asks `may` before each step, and waits `patience` for its turn.
pub async fn apply(plan: &Plan, engine: &dyn Engine, patience: Duration, mut may: impl AsyncFnMut() -> Result<()>) -> Result<()> {
    for (done, snapshot) in plan.snapshots.iter().enumerate() {
        notify::status(&format!("removing {done} of {} snapshots", plan.snapshots.len()));
        may().await?;
        engine.forget(std::slice::from_ref(snapshot), patience)?;
    }
    if !plan.snapshots.is_empty() {
        notify::status("removing data that is no longer needed");
    }
    // Also without snapshots to remove: what was marked yesterday is removed today.
    may().await?;
    engine.prune(patience)
}

/// The step that follows a complete run.
pub async fn prune(config: &Config) -> Result<()> {
    if Record::current()?.is_none_or(|record| record.outcome != Outcome::Complete) {
        bail!("the run is not complete: nothing is pruned");
    }
    let engine = open::in_run(config)?;
    let plan = plan(&config.retention, &Catalog::read(&*engine, Whose::Own)?, Timestamp::now())?;
    apply(&plan, &*engine, patience::LONG, async || Ok(())).await?;
    let kept = plan.fates.iter().filter(|fate| fate.keep).count();
    tracing::info!(kept, removed = plan.fates.len() - kept, leftovers = plan.leftovers.len(), "pruned");
    Ok(())
}
