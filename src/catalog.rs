//! The runs in the repository: which are complete, and which are the remains of failed runs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use jiff::Timestamp;

use crate::host::{self, own};
use crate::paths::{self, RootDirectory};
use crate::repository::{Engine, Reader, Snapshot};
use crate::runs::record::{is_ahead, read_json, write_json};
use crate::runs::{Manifest, Outcome, Record};
use crate::values::RunId;

/// The part that holds the manifest.
pub const MANIFEST: &str = "manifest";

/// The prefix of a part's checksum, before the hash over its content and metadata.
pub const TREE: &str = "sha256-tree:";

/// Which host's runs a catalog has: several hosts can share a repository.
#[derive(Debug, Clone, Copy)]
pub enum Whose<'a> {
    /// This host's.
    Own,
    /// Those of the host with this name.
    Host(&'a str),
    /// Those of the host that this run belongs to: this host if it has such a run.
    Run(&'a RunId),
}

impl<'a> Whose<'a> {
    /// The selection by the arguments of a command.
    pub fn asked(host: Option<&'a str>, run: Option<&'a RunId>) -> Self {
        match (host, run) {
            (Some(host), _) => Self::Host(host),
            (None, Some(run)) => Self::Run(run),
            (None, None) => Self::Own,
        }
    }
}

/// The runs of one host.
#[derive(Debug, Default)]
pub struct Catalog {
    /// The host.
    pub host: String,
    /// The complete runs, oldest first.
    pub complete: Vec<CompleteRun>,
    /// Runs whose manifest cannot be read, and why.
    pub damaged: Vec<(RunId, String)>,
    /// Runs with a part that is missing or was rewritten, and the reason.
    pub broken: Vec<(RunId, String)>,
    /// Runs without a manifest, oldest first: failed ones, or one in progress.
    pub incomplete: Vec<(RunId, Vec<Snapshot>)>,
    /// The number of runs of each other host.
    pub elsewhere: BTreeMap<String, usize>,
}

/// A complete run.
#[derive(Debug)]
pub struct CompleteRun {
    /// Its manifest.
    pub manifest: Manifest,
    /// All its snapshots, including that of the manifest.
    pub snapshots: Vec<Snapshot>,
}

impl Catalog {
    /// Reads the catalog from the repository. Fails if that cannot be read; a damaged manifest is
    /// not a failure.
    pub fn read(engine: &dyn Engine, whose: Whose<'_>, root: &RootDirectory) -> Result<Self> {
        Self::load(engine, whose, root, |_| false)
    }

    /// Like [`Catalog::read`], but reads the manifest of `run` from the repository even if it is
    /// cached.
    pub fn read_afresh(
        engine: &dyn Engine,
        whose: Whose<'_>,
        root: &RootDirectory,
        run: &RunId,
    ) -> Result<Self> {
        Self::load(engine, whose, root, |other| other == run)
    }

    /// The runs that have a manifest and cannot be restored, and why.
    pub fn unusable(&self) -> impl Iterator<Item = &(RunId, String)> {
        self.damaged.iter().chain(&self.broken)
    }

    /// A message about the runs of other hosts, if there are any.
    pub fn of_others(&self) -> Option<String> {
        let others: Vec<String> =
            self.elsewhere.iter().map(|(host, count)| format!("{count} of '{host}'")).collect();
        (!others.is_empty())
            .then(|| format!("runs of other hosts are here too: {} (--host)", others.join(", ")))
    }

    /// The complete runs that are dated after `now`.
    pub fn ahead(&self, now: Timestamp) -> impl Iterator<Item = &CompleteRun> {
        self.complete.iter().filter(move |run| is_ahead(run.manifest.started, now))
    }

    /// The newest complete run. Runs that are dated after `now` do not count, unless all are: then
    /// the clock is wrong now. A run whose manifest says that it came after another is newer than
    /// that one, even if its date is earlier.
    pub fn newest(&self, now: Timestamp) -> Option<&CompleteRun> {
        let dated: Vec<&CompleteRun> =
            self.complete.iter().filter(|run| !is_ahead(run.manifest.started, now)).collect();
        let mut newest = *dated.last().or(self.complete.last().as_ref())?;
        // Each step goes to another run, so there are at most as many steps as runs.
        for _ in &dated {
            let next = dated.iter().find(|run| {
                run.manifest.after.as_ref() == Some(&newest.manifest.id)
                    && run.manifest.id < newest.manifest.id
            });
            newest = next.copied().unwrap_or(newest);
        }
        Some(newest)
    }

    /// The complete run with this ID, or the newest at the time `now`.
    pub fn pick(&self, id: Option<&RunId>, now: Timestamp) -> Result<&CompleteRun> {
        if let Some(id) = id {
            return self.find(id);
        }
        let newest = self.newest(now);
        if let Some(newest) = newest {
            for run in self.ahead(now).filter(|run| run.manifest.id != newest.manifest.id) {
                tracing::warn!("{}; {} counts as the newest", ahead(run), newest.manifest.id);
            }
        }
        if let Some((run, why)) = self.unusable().max_by_key(|(run, _)| run) {
            ensure!(
                newest.is_some(),
                "there is no complete run that can be used; run {run}: {why}"
            );
            if newest.is_some_and(|newest| newest.manifest.id < *run) {
                tracing::warn!("run {run} is newer and cannot be used: {why}");
            }
        }
        newest.with_context(|| {
            let others = self.of_others().map_or_else(String::new, |others| format!("; {others}"));
            format!("there is no complete run of host '{}' in the repository{others}", self.host)
        })
    }

    /// The complete run with this ID.
    pub fn find(&self, id: &RunId) -> Result<&CompleteRun> {
        if let Some((_, why)) = self.unusable().find(|(run, _)| run == id) {
            bail!("run {id} cannot be used: {why}");
        }
        let found = self.complete.iter().find(|run| run.manifest.id == *id);
        found.with_context(|| format!("there is no complete run {id}: see 'gitlab-backup list'"))
    }

    fn load(
        engine: &dyn Engine,
        whose: Whose<'_>,
        root: &RootDirectory,
        afresh: impl Fn(&RunId) -> bool,
    ) -> Result<Self> {
        let all = engine.snapshots()?;
        let cache = &root.at(paths::MANIFESTS);
        clean_cache(cache, &all);
        let own = host::name();
        let host = match whose {
            Whose::Own => own,
            Whose::Host(host) => host.to_owned(),
            Whose::Run(run) => host_of_run(&all, run, own)?,
        };
        let mut runs: BTreeMap<RunId, Vec<Snapshot>> = BTreeMap::new();
        let mut elsewhere: BTreeMap<String, BTreeSet<RunId>> = BTreeMap::new();
        for snapshot in all {
            if snapshot.host == host {
                runs.entry(snapshot.run.clone()).or_default().push(snapshot);
            } else if snapshot.part == MANIFEST {
                elsewhere.entry(snapshot.host).or_default().insert(snapshot.run);
            }
        }
        let elsewhere = elsewhere.into_iter().map(|(host, runs)| (host, runs.len())).collect();
        let mut catalog = Self { host, elsewhere, ..Self::default() };
        let mut reader = None;
        for (run, snapshots) in runs {
            let Some(newest) = snapshots
                .iter()
                .filter(|snapshot| snapshot.part == MANIFEST)
                .max_by_key(|snapshot| snapshot.time)
            else {
                match lost_its_manifest(&catalog.host, &run, root) {
                    Some(why) => catalog.broken.push((run, why)),
                    None => catalog.incomplete.push((run, snapshots)),
                }
                continue;
            };
            match read_manifest((engine, &mut reader), newest, cache, afresh(&run)) {
                Ok(manifest) => match with_parts(manifest, &snapshots) {
                    Ok(manifest) => catalog.complete.push(CompleteRun { manifest, snapshots }),
                    Err(error) => catalog.broken.push((run, format!("{error:#}"))),
                },
                Err(error) => catalog.damaged.push((run, format!("{error:#}"))),
            }
        }
        Ok(catalog)
    }
}

/// A message about a run that has a date in the future.
pub fn ahead(run: &CompleteRun) -> String {
    format!(
        "run {} is dated {}, which is in the future because of a wrong clock",
        run.manifest.id, run.manifest.started
    )
}

/// An error message if a run without a manifest is not a failed one: the record on this host says
/// that it was complete and has not been removed.
fn lost_its_manifest(host: &str, run: &RunId, root: &RootDirectory) -> Option<String> {
    if host != host::name() {
        return None;
    }
    let record = Record::of(root, run).ok().flatten()?;
    (record.outcome == Outcome::Complete && record.removed.is_none()).then(|| {
        format!(
            "part '{MANIFEST}' of run {run} is gone (if that was meant, remove {}/{run}.json, and \
             the next prune removes what is left)",
            root.at(paths::RUNS).display()
        )
    })
}

/// Removes cached manifests whose snapshots no longer exist: no other snapshot gets the same ID.
fn clean_cache(cache: &Path, all: &[Snapshot]) {
    let Ok(entries) = own::entries(cache) else { return };
    let existing: BTreeSet<&str> = all.iter().map(|snapshot| snapshot.id.as_str()).collect();
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        let is_id = |id: &&str| id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        let id =
            path.file_name().and_then(|name| name.to_str()?.strip_suffix(".json")).filter(is_id);
        if id.is_some_and(|id| !existing.contains(id)) {
            // Fails for a user who may only read the cache.
            let _ = own::remove(&path);
        }
    }
}

/// The host that a run belongs to.
fn host_of_run(all: &[Snapshot], run: &RunId, own: String) -> Result<String> {
    let hosts: BTreeSet<&str> = all
        .iter()
        .filter(|snapshot| snapshot.run == *run)
        .map(|snapshot| snapshot.host.as_str())
        .collect();
    if hosts.contains(own.as_str()) {
        return Ok(own);
    }
    ensure!(
        hosts.len() < 2,
        "run {run} belongs to several hosts: select one with --host ({})",
        hosts.into_iter().collect::<Vec<_>>().join(", ")
    );
    Ok(hosts.first().map_or(own, |host| (*host).to_owned()))
}

/// Updates the manifest with the current IDs of its parts' snapshots: a copy of the repository, a
/// tag or a repair gives a snapshot another ID. Its tags name the run and the part, and the hash of
/// its tree proves that it is the same.
fn with_parts(mut manifest: Manifest, snapshots: &[Snapshot]) -> Result<Manifest> {
    for part in &mut manifest.parts {
        let same: Vec<&Snapshot> =
            snapshots.iter().filter(|snapshot| snapshot.part == part.name).collect();
        if same.iter().any(|snapshot| snapshot.id.starts_with(&part.snapshot)) {
            continue;
        }
        let tree = part.checksum.strip_prefix(TREE);
        if let Some(found) = same.iter().find(|snapshot| Some(snapshot.tree.as_str()) == tree) {
            part.snapshot.clone_from(&found.id);
            continue;
        }
        let why = if same.is_empty() {
            "is gone"
        } else {
            "is not what was stored: its snapshot was rewritten"
        };
        bail!("part '{}' of run {} {why}", part.name, manifest.id);
    }
    Ok(manifest)
}

/// Reads a run's manifest, from the cache unless `afresh`.
fn read_manifest<'a>(
    (engine, reader): (&'a dyn Engine, &mut Option<Reader<'a>>),
    snapshot: &Snapshot,
    cache: &Path,
    afresh: bool,
) -> Result<Manifest> {
    // A snapshot never changes, so the cache is always current.
    let cache = cache.join(format!("{}.json", snapshot.id));
    let cached: Option<Manifest> = read_json(&cache).ok().flatten();
    if let Some(manifest) =
        cached.filter(|manifest| !afresh && check_manifest(manifest, snapshot).is_ok())
    {
        return Ok(manifest);
    }
    let read = match reader {
        Some(read) => read,
        None => reader.insert(engine.reader()?),
    };
    // A path in the snapshot, not of this host.
    let bytes = read(&snapshot.id, Path::new(paths::MANIFEST))?;
    let manifest = serde_json::from_slice(&bytes)
        .with_context(|| format!("the manifest of run {} is damaged", snapshot.run))?;
    check_manifest(&manifest, snapshot)?;
    if let Err(error) = write_json(&cache, &manifest) {
        tracing::debug!("{error:#}");
    }
    Ok(manifest)
}

/// Checks that a manifest names its own run, and snapshots by their IDs: anybody who can write to
/// the repository can write a manifest.
fn check_manifest(manifest: &Manifest, snapshot: &Snapshot) -> Result<()> {
    ensure!(
        manifest.id == snapshot.run,
        "the manifest of run {} is damaged: it names run {}",
        snapshot.run,
        manifest.id
    );
    for part in &manifest.parts {
        let is_id = (8..=64).contains(&part.snapshot.len())
            && part.snapshot.bytes().all(|byte| byte.is_ascii_hexdigit());
        ensure!(
            is_id,
            "the manifest of run {} is damaged: part '{}' names no snapshot",
            snapshot.run,
            part.name
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_speaks_of_its_own_run_and_of_snapshots() {
        let of = |run: &str, snapshot: &str| -> Manifest {
            let part = format!(
                r#"{{"name":"files","snapshot":"{snapshot}","paths":[],"bytes":0,"files":0,"seconds":0.0,"checksum":""}}"#
            );
            let text = format!(
                r#"{{"id":"{run}","host":"h","started":"2026-11-28T00:00:00Z","finished":"2026-11-28T00:00:00Z","complete":true,
                    "downtime_seconds":null,"downtime":null,"versions":[],"parts":[{part}]}}"#
            );
            serde_json::from_str(&text).unwrap()
        };
        let run = "20261128T000000Z-aaaa";
        let own = Snapshot {
            id: "a".repeat(64),
            tree: String::new(),
            time: "2026-11-28T00:00:00Z".parse().unwrap(),
            host: "h".to_owned(),
            run: run.parse().unwrap(),
            part: MANIFEST.to_owned(),
        };
        let id = "0123456789abcdef".repeat(4);
        assert!(check_manifest(&of(run, &id), &own).is_ok());
        for (run, snapshot) in [
            ("20271128T000000Z-bbbb", id.as_str()),
            (run, "--help"),
            (run, ""),
            (run, "latest"),
            (run, "0123456 9abcdef"),
        ] {
            assert!(check_manifest(&of(run, snapshot), &own).is_err(), "{run} {snapshot}");
        }
    }
}
