//! Retention: whole runs, complete ones only, and what failed runs left behind.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use anyhow::{Result, bail};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::catalog::{Catalog, MANIFEST, Whose};
use crate::config::{Config, Retention};
use crate::open;
use crate::paths::RootDirectory;
use crate::repository::retention::{self, Fate};
use crate::repository::{Engine, Snapshot, patience};
use crate::runs::record::{CLOCK, is_ahead};
use crate::runs::{Outcome, Record};
use crate::systemd::notify;
use crate::values::RunId;

/// What a failed run left is kept for so long: the next run uses its data again.
const LEFTOVER_AGE: SignedDuration = SignedDuration::from_hours(24);

/// No clock is doubted for a gap between two runs that is shorter.
const GAP: SignedDuration = SignedDuration::from_hours(7 * 24);
/// How many of the gaps before tell what is usual, and how many times as long one must be to be
/// doubted.
const GAPS: usize = 5;
const LONGER: i32 = 3;

/// What is to be removed.
#[derive(Debug)]
pub struct PrunePlan {
    /// Every complete run, newest first.
    pub fates: Vec<Fate>,
    /// Runs that never were complete and are old enough to go.
    pub leftovers: Vec<RunId>,
    /// The snapshots to remove, in this order: a manifest before the parts that it vouches for.
    snapshots: Vec<String>,
    /// Of complete runs that count: how many go, how many stay, and how many must.
    removed: usize,
    kept: usize,
    least: usize,
    /// The days of which no run is left, of all that have one.
    lost_days: usize,
    days: usize,
    /// What makes the clock doubtful.
    clock: Option<String>,
}

/// Why a plan is not carried out by itself.
#[derive(Debug, PartialEq, Eq)]
pub enum Doubt {
    /// Too few would be left: no harm, while there are few.
    Few(String),
    /// Most would go.
    Many(String),
}

impl PrunePlan {
    /// The snapshots to remove, in their order.
    pub fn snapshots(&self) -> &[String] {
        &self.snapshots
    }

    /// What somebody has to agree to: that fewer runs than `keep-min` would be left, or more than
    /// half would go. A day that keeps one of its runs loses nothing that was asked for: of a run
    /// every hour, most go every day.
    pub fn doubt(&self) -> Option<Doubt> {
        let Self { removed, kept, least, lost_days, days, .. } = *self;
        if removed == 0 {
            return None;
        }
        let words = format!(
            "this would remove {removed} of {} complete runs and leave {kept}",
            removed + kept
        );
        let agree = format!(
            "'gitlab-backup prune --dry-run' tells which, 'gitlab-backup prune --yes-remove {removed}' removes them"
        );
        if let Some(why) = &self.clock {
            return Some(Doubt::Many(format!(
                "{words}, and {why}: is the clock right? Nothing is removed: {agree}"
            )));
        }
        // In the first days they go when there are more.
        if lost_days * 2 > days && removed + kept > 2 * least {
            return Some(Doubt::Many(format!(
                "{words}, with none of {lost_days} of {days} days, so nothing is removed: {agree}"
            )));
        }
        (kept < least).then(|| {
            Doubt::Few(format!(
                "{words}, fewer than {least} ([retention] keep-min), so nothing is removed: {agree}"
            ))
        })
    }

    /// Fails unless there is no doubt, or somebody has agreed to the removal of exactly so many
    /// complete runs.
    pub fn agreed(&self, removed: Option<usize>) -> Result<()> {
        match (self.doubt(), removed) {
            (_, Some(removed)) if removed != self.removed => {
                bail!(
                    "--yes-remove {removed}: it would be {} complete runs, so nothing is removed ('gitlab-backup prune --dry-run')",
                    self.removed
                )
            }
            (None, _) | (_, Some(_)) => Ok(()),
            (Some(Doubt::Few(words) | Doubt::Many(words)), None) => bail!("{words}"),
        }
    }
}

/// Decides which runs go, by their dates alone.
///
/// # Errors
/// If a manifest cannot be read: a run that is not known is not judged, and neither are the others.
pub fn plan(policy: &Retention, catalog: &Catalog, now: Timestamp) -> Result<PrunePlan> {
    if !catalog.damaged.is_empty() {
        let why: Vec<&str> = catalog.damaged.iter().map(|(_, why)| why.as_str()).collect();
        bail!("nothing is pruned while a manifest cannot be read: {}", why.join("; "));
    }
    for (_, why) in &catalog.broken {
        tracing::warn!("{why}: this run is not judged");
    }
    let Dated { ahead, behind, judged } = Dated::of(catalog, now);
    let zone = TimeZone::system();
    let decided = retention::decide(policy, &judged, &zone);
    let removed = decided.iter().filter(|fate| !fate.keep).count();
    let kept = decided.len() - removed;
    let least = usize::try_from(policy.effective_keep_min()).unwrap_or(usize::MAX);
    let clock = jumped(policy, &judged, &zone, removed, least);
    let (lost_days, days) = lost_days(&decided, &judged, &zone);
    let fates: Vec<Fate> = ahead.into_iter().chain(behind).chain(decided).collect();
    let (leftovers, mut snapshots) = leftovers(catalog, now);
    snapshots.extend(of_removed(catalog, &fates));
    Ok(PrunePlan { fates, leftovers, snapshots, removed, kept, least, lost_days, days, clock })
}

/// The complete runs of a catalog, newest first, by whether their dates can be relied on. A run
/// whose date was made by a wrong clock stays, and does not count for the others.
struct Dated {
    /// Dated in the future. One of these would be the newest for ever.
    ahead: Vec<Fate>,
    /// Dated before a run that they came after. These are newer than they look.
    behind: Vec<Fate>,
    /// All others, with their dates.
    judged: Vec<(RunId, Timestamp)>,
}

impl Dated {
    fn of(catalog: &Catalog, now: Timestamp) -> Self {
        let manifests = || catalog.complete.iter().map(|run| &run.manifest);
        let dates: HashMap<&RunId, Timestamp> = manifests()
            .map(|manifest| (&manifest.id, manifest.started))
            .filter(|(_, started)| !is_ahead(*started, now))
            .collect();
        let mut dated = Self { ahead: Vec::new(), behind: Vec::new(), judged: Vec::new() };
        for manifest in manifests() {
            let (run, started) = (&manifest.id, manifest.started);
            let after = manifest.after.as_ref().filter(|after| {
                dates.get(after).is_some_and(|date| date.duration_since(started) > CLOCK)
            });
            if is_ahead(started, now) {
                tracing::warn!(
                    "run {run} is dated {started}, which is not yet: it stays, and does not count for the others"
                );
                dated.ahead.push(stays(run, "dated in the future"));
            } else if let Some(after) = after {
                tracing::warn!(
                    "run {run} is dated {started}, and came after run {after}: it stays, and does not count for the others"
                );
                dated.behind.push(stays(run, "dated before a run that it came after"));
            } else {
                dated.judged.push((run.clone(), started));
            }
        }
        dated
    }
}

fn stays(run: &RunId, why: &'static str) -> Fate {
    Fate { run: run.clone(), keep: true, reasons: vec![why] }
}

/// How many days lose their only runs, and how many days have runs.
fn lost_days(fates: &[Fate], runs: &[(RunId, Timestamp)], zone: &TimeZone) -> (usize, usize) {
    let dates: HashMap<&RunId, Timestamp> = runs.iter().map(|(run, date)| (run, *date)).collect();
    let day =
        |fate: &Fate| dates.get(&fate.run).map(|date| date.to_zoned_datetime(zone.clone()).date());
    let days: BTreeSet<_> = fates.iter().filter_map(day).collect();
    let kept: BTreeSet<_> = fates.iter().filter(|fate| fate.keep).filter_map(day).collect();
    (days.len() - kept.len(), days.len())
}

/// The runs that never became complete and are old enough to go, and their snapshots.
fn leftovers(catalog: &Catalog, now: Timestamp) -> (Vec<RunId>, Vec<String>) {
    let (mut runs, mut snapshots) = (Vec::new(), Vec::new());
    for (run, left) in &catalog.incomplete {
        if left.iter().all(|snapshot| now.duration_since(snapshot.time) > LEFTOVER_AGE) {
            runs.push(run.clone());
            snapshots.extend(left.iter().map(|snapshot| snapshot.id.clone()));
        }
    }
    (runs, snapshots)
}

/// The snapshots of complete runs that go, each run's manifest first.
fn of_removed(catalog: &Catalog, fates: &[Fate]) -> Vec<String> {
    let mut snapshots = Vec::new();
    for fate in fates.iter().filter(|fate| !fate.keep) {
        for run in catalog.complete.iter().filter(|run| run.manifest.id == fate.run) {
            let (manifest, parts): (Vec<&Snapshot>, Vec<&Snapshot>) =
                run.snapshots.iter().partition(|snapshot| snapshot.part == MANIFEST);
            snapshots.extend(manifest.into_iter().chain(parts).map(|snapshot| snapshot.id.clone()));
        }
    }
    snapshots
}

/// Whether the clock seems to have jumped ahead between two runs, and more runs go for it than came
/// since: by a policy that goes by time, everything before the jump is old. As many runs as must be
/// left have to agree with the new time before it is believed. `runs` are in the order of their
/// dates, and the policy removes `removed` of them.
fn jumped(
    policy: &Retention,
    runs: &[(RunId, Timestamp)],
    zone: &TimeZone,
    removed: usize,
    least: usize,
) -> Option<String> {
    let gaps: Vec<SignedDuration> =
        runs.windows(2).map(|pair| pair[1].1.duration_since(pair[0].1)).collect();
    let is_jump = |at: usize| {
        let usual = gaps[..at].iter().rev().take(GAPS).max().copied().unwrap_or_default();
        gaps[at] > GAP && gaps[at] > usual * LONGER
    };
    let at = (gaps.len().saturating_sub(least)..gaps.len()).find(|at| is_jump(*at))?;
    let (before, since) = runs.split_at(at + 1);
    let without = retention::decide(policy, before, zone).iter().filter(|fate| !fate.keep).count();
    let more = removed.saturating_sub(without);
    (more > since.len()).then(|| {
        let days = gaps[at].as_hours() / 24;
        format!("{more} of them because run {} is {days} days after the one before", since[0].0)
    })
}

/// Removes what `plan` says, one snapshot after the other, and then the data that nothing needs any
/// more. Killed at any point, it leaves runs that are whole or no longer listed. Asks `may` before
/// each step, and waits `patience` for its turn.
pub async fn apply(
    plan: &PrunePlan,
    engine: &dyn Engine,
    patience: Duration,
    mut may: impl AsyncFnMut() -> Result<()>,
) -> Result<()> {
    may().await?;
    for fate in plan.fates.iter().filter(|fate| !fate.keep) {
        Record::remove(&RootDirectory::host(), &fate.run, Timestamp::now())?;
    }
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
    if Record::current(&RootDirectory::host())?
        .is_none_or(|record| record.outcome != Outcome::Complete)
    {
        bail!("the run is not complete: nothing is pruned");
    }
    let engine = open::in_run(config)?;
    let plan = plan(&config.retention, &Catalog::read(&*engine, Whose::Own)?, Timestamp::now())?;
    match plan.doubt() {
        Some(Doubt::Many(words)) => bail!("{words}"),
        Some(Doubt::Few(words)) => {
            tracing::info!("{words}");
            return Ok(());
        }
        None => apply(&plan, &*engine, patience::LONG, async || Ok(())).await?,
    }
    let kept = plan.fates.iter().filter(|fate| fate.keep).count();
    tracing::info!(
        kept,
        removed = plan.fates.len() - kept,
        leftovers = plan.leftovers.len(),
        "pruned"
    );
    Ok(())
}
