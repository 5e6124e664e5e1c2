//! Applies the retention policy: removes complete runs as a whole, and the snapshots that failed
//! runs have left.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use anyhow::{Result, bail};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::catalog::{Catalog, MANIFEST, Whose};
use crate::config::{Config, Retention};
use crate::machine::Base;
use crate::open;
use crate::repository::retention::{self, Fate};
use crate::repository::{Engine, Snapshot, patience};
use crate::runs::record::{CLOCK, is_ahead};
use crate::runs::{Outcome, Record};
use crate::systemd::notify;
use crate::values::RunId;

/// How long the snapshots of a failed run are kept. The next run uses their data again.
const LEFTOVER_AGE: SignedDuration = SignedDuration::from_hours(24);

/// The shortest gap between two runs that makes the clock doubtful.
const GAP: SignedDuration = SignedDuration::from_hours(7 * 24);
/// How many earlier gaps a gap is compared with.
const GAPS: usize = 5;
/// How many times as long as the longest of those a doubtful gap is.
const LONGER: i32 = 3;

/// The runs and snapshots to remove.
#[derive(Debug)]
pub struct PrunePlan {
    /// Every complete run, newest first, and whether it is kept.
    pub fates: Vec<Fate>,
    /// Runs that never became complete and are old enough to be removed.
    pub leftovers: Vec<RunId>,
    /// The snapshots to remove, in this order: a manifest before the parts that it names.
    snapshots: Vec<String>,
    /// How many complete runs are removed, of those whose dates can be relied on.
    removed: usize,
    /// How many of them are kept.
    kept: usize,
    /// How many of them must be kept: `[retention] keep-min`.
    least: usize,
    /// The number of days that lose all of their runs.
    lost_days: usize,
    /// The number of days that have runs.
    days: usize,
    /// Why the clock may be wrong, if it may.
    clock: Option<String>,
}

/// Why a plan is not applied without confirmation.
#[derive(Debug, PartialEq, Eq)]
pub enum Doubt {
    /// Fewer runs than `keep-min` would be left. Normal in the first days, so not an error.
    Few(String),
    /// Suspiciously many runs would be removed.
    Many(String),
}

impl PrunePlan {
    /// The snapshots to remove, in their order.
    pub fn snapshots(&self) -> &[String] {
        &self.snapshots
    }

    /// Why the plan needs confirmation, if it does: fewer runs than `keep-min` would be left, more
    /// than half of the days would lose all of their runs, or the clock may be wrong. Days are
    /// counted and not runs, because with hourly runs most runs of a day are removed every day.
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
            "'gitlab-backup prune --dry-run' shows which, 'gitlab-backup prune --yes-remove \
             {removed}' removes them"
        );
        if let Some(why) = &self.clock {
            return Some(Doubt::Many(format!(
                "{words}, and {why}: is the clock right? Nothing is removed: {agree}"
            )));
        }
        // Not in the first days: with few runs, it is normal that the first ones are removed.
        if lost_days * 2 > days && removed + kept > 2 * least {
            return Some(Doubt::Many(format!(
                "{words}, and {lost_days} of {days} days would lose all of their runs, so nothing \
                 is removed: {agree}"
            )));
        }
        (kept < least).then(|| {
            Doubt::Few(format!(
                "{words}, fewer than {least} ([retention] keep-min), so nothing is removed: \
                 {agree}"
            ))
        })
    }

    /// Fails if the plan needs confirmation and has none. `confirmed` is the number of complete
    /// runs that the admin has agreed to remove, and must be exact.
    pub fn ensure_confirmed(&self, confirmed: Option<usize>) -> Result<()> {
        match (self.doubt(), confirmed) {
            (_, Some(confirmed)) if confirmed != self.removed => {
                bail!(
                    "--yes-remove {confirmed}: the plan would remove {} complete runs, so nothing \
                     is removed ('gitlab-backup prune --dry-run')",
                    self.removed
                )
            }
            (None, _) | (_, Some(_)) => Ok(()),
            (Some(Doubt::Few(words) | Doubt::Many(words)), None) => bail!("{words}"),
        }
    }
}

/// Decides which runs are removed, by their dates alone.
///
/// # Errors
/// If any manifest cannot be read. Without the date of that run, the others cannot be judged
/// either.
pub fn plan(policy: &Retention, catalog: &Catalog, now: Timestamp) -> Result<PrunePlan> {
    if !catalog.damaged.is_empty() {
        let why: Vec<&str> = catalog.damaged.iter().map(|(_, why)| why.as_str()).collect();
        bail!("nothing is pruned while a manifest cannot be read: {}", why.join("; "));
    }
    for (_, why) in &catalog.broken {
        tracing::warn!("{why}: the retention policy ignores this run");
    }
    let Dated { ahead, behind, judged } = Dated::classify(catalog, now);
    let zone = TimeZone::system();
    let decided = retention::decide(policy, &judged, &zone);
    let removed = decided.iter().filter(|fate| !fate.keep).count();
    let kept = decided.len() - removed;
    let least = usize::try_from(policy.effective_keep_min()).unwrap_or(usize::MAX);
    let clock = find_clock_jump(policy, &judged, &zone, removed, least);
    let (lost_days, days) = count_lost_days(&decided, &judged, &zone);
    let fates: Vec<Fate> = ahead.into_iter().chain(behind).chain(decided).collect();
    let (leftovers, mut snapshots) = find_leftovers(catalog, now);
    snapshots.extend(snapshots_of_removed(catalog, &fates));
    Ok(PrunePlan { fates, leftovers, snapshots, removed, kept, least, lost_days, days, clock })
}

/// The complete runs of a catalog, newest first, by whether their dates can be relied on. A run
/// with a date from a wrong clock is kept, and does not count as one of the runs that the policy
/// keeps.
struct Dated {
    /// Runs that are dated in the future. To the policy, they would always be the newest.
    ahead: Vec<Fate>,
    /// Runs that are dated earlier than a run before them. They are newer than their dates say.
    behind: Vec<Fate>,
    /// All other runs, with their dates.
    judged: Vec<(RunId, Timestamp)>,
}

impl Dated {
    fn classify(catalog: &Catalog, now: Timestamp) -> Self {
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
                    "run {run} is dated in the future ({started}): it is kept, and does not count \
                     as one of the runs to keep"
                );
                dated.ahead.push(kept(run, "dated in the future"));
            } else if let Some(after) = after {
                tracing::warn!(
                    "run {run} is dated {started}, and came after run {after}: it is kept, and \
                     does not count as one of the runs to keep"
                );
                dated.behind.push(kept(run, "dated before a run that it came after"));
            } else {
                dated.judged.push((run.clone(), started));
            }
        }
        dated
    }
}

/// The fate of a run that is kept for this reason.
fn kept(run: &RunId, why: &'static str) -> Fate {
    Fate { run: run.clone(), keep: true, reasons: vec![why] }
}

/// Counts the days that lose all of their runs, and the days that have runs.
fn count_lost_days(fates: &[Fate], runs: &[(RunId, Timestamp)], zone: &TimeZone) -> (usize, usize) {
    let dates: HashMap<&RunId, Timestamp> = runs.iter().map(|(run, date)| (run, *date)).collect();
    let day =
        |fate: &Fate| dates.get(&fate.run).map(|date| date.to_zoned_datetime(zone.clone()).date());
    let days: BTreeSet<_> = fates.iter().filter_map(day).collect();
    let kept: BTreeSet<_> = fates.iter().filter(|fate| fate.keep).filter_map(day).collect();
    (days.len() - kept.len(), days.len())
}

/// The runs that never became complete and are old enough to be removed, and their snapshots.
fn find_leftovers(catalog: &Catalog, now: Timestamp) -> (Vec<RunId>, Vec<String>) {
    let (mut runs, mut snapshots) = (Vec::new(), Vec::new());
    for (run, left) in &catalog.incomplete {
        if left.iter().all(|snapshot| now.duration_since(snapshot.time) > LEFTOVER_AGE) {
            runs.push(run.clone());
            snapshots.extend(left.iter().map(|snapshot| snapshot.id.clone()));
        }
    }
    (runs, snapshots)
}

/// The snapshots of the complete runs that are removed, each run's manifest first.
fn snapshots_of_removed(catalog: &Catalog, fates: &[Fate]) -> Vec<String> {
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

/// Whether the clock seems to have jumped ahead between two of the newest runs, so that the policy
/// removes runs as too old that are not. Only jumps that cost more runs than have been made since
/// count, and a jump is accepted once `least` runs have been made after it. `runs` are in the order
/// of their dates, and the policy removes `removed` of them. Returns the reason in words.
fn find_clock_jump(
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

/// Removes the snapshots of `plan` one after the other, and then the data that no snapshot needs
/// any more. If it is killed, every run is either whole or no longer listed. Calls `may` before
/// each step, whose error stops it, and waits up to `patience` for the repository's lock.
pub async fn apply(
    plan: &PrunePlan,
    engine: &dyn Engine,
    base: Base<'_>,
    patience: Duration,
    mut may: impl AsyncFnMut() -> Result<()>,
) -> Result<()> {
    may().await?;
    for fate in plan.fates.iter().filter(|fate| !fate.keep) {
        Record::remove(base.root, &fate.run, base.clock.now())?;
    }
    for (done, snapshot) in plan.snapshots.iter().enumerate() {
        notify::status(&format!("removing {done} of {} snapshots", plan.snapshots.len()));
        may().await?;
        engine.forget(std::slice::from_ref(snapshot), patience)?;
    }
    if !plan.snapshots.is_empty() {
        notify::status("removing data that is no longer needed");
    }
    // Even without snapshots to remove: data that an earlier prune has marked is deleted a day
    // later.
    may().await?;
    engine.prune(patience)
}

/// The prune step, which follows a complete run.
pub async fn prune(config: &Config, base: Base<'_>) -> Result<()> {
    let Base { clock, root, .. } = base;
    if Record::current(root)?.is_none_or(|record| record.outcome != Outcome::Complete) {
        bail!("the run is not complete: nothing is pruned");
    }
    let engine = open::in_run(config, root)?;
    let catalog = Catalog::read(&*engine, Whose::Own, root)?;
    let plan = plan(&config.retention, &catalog, clock.now())?;
    match plan.doubt() {
        Some(Doubt::Many(words)) => bail!("{words}"),
        Some(Doubt::Few(words)) => {
            tracing::info!("{words}");
            return Ok(());
        }
        None => apply(&plan, &*engine, base, patience::LONG, async || Ok(())).await?,
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
