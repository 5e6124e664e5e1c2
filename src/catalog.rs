//! What the repository holds, run by run: which are complete, which are left over from runs that failed.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use crate::paths;
use crate::repository::{Engine, Snapshot};
use crate::runs::Manifest;
use crate::runs::record::{read_json, write_json};
use crate::values::RunId;

/// The part that holds the manifest.
pub const MANIFEST: &str = "manifest";
/// Where the manifest is in its snapshot.
pub const MANIFEST_PATH: &str = "/var/lib/gitlab-backup/staging/parts/manifest/manifest.json";

/// The repository's runs.
#[derive(Debug, Default)]
pub struct Catalog {
    /// With a manifest that can be read, oldest first.
    pub complete: Vec<CompleteRun>,
    /// With a manifest that cannot be read, and why.
    pub damaged: Vec<(RunId, String)>,
    /// Without a manifest: what failed runs left, or a run that goes on, oldest first.
    pub incomplete: Vec<(RunId, Vec<Snapshot>)>,
}

/// A complete run.
#[derive(Debug)]
pub struct CompleteRun {
    /// What it says of itself.
    pub manifest: Manifest,
    /// All its snapshots, the manifest's among them.
    pub snapshots: Vec<Snapshot>,
}

impl Catalog {
    /// Asks the repository. Fails if it cannot be read; a single damaged manifest is no failure.
    pub fn read(engine: &dyn Engine) -> Result<Self> {
        Self::load(engine, Path::new(paths::MANIFESTS), |_| false)
    }

    /// The same, with the manifest of `run` as the repository has it now, whatever was read of it before.
    pub fn read_afresh(engine: &dyn Engine, run: &RunId) -> Result<Self> {
        Self::load(engine, Path::new(paths::MANIFESTS), |other| other == run)
    }

    /// The same as [`Catalog::read`], with what was read once kept in the directory `cache`.
    pub fn read_with(engine: &dyn Engine, cache: &Path) -> Result<Self> {
        Self::load(engine, cache, |_| false)
    }

    /// The complete run that is asked for, or the newest.
    pub fn pick(&self, id: Option<&RunId>) -> Result<&CompleteRun> {
        let Some(id) = id else {
            let newest = self.complete.last();
            if let Some((run, why)) = self.damaged.last() {
                ensure!(newest.is_some(), "there is no complete run whose manifest can be read; run {run}: {why}");
                if newest.is_some_and(|newest| newest.manifest.id < *run) {
                    tracing::warn!("run {run} is newer and cannot be used: {why}");
                }
            }
            return newest.context("there is no complete run in the repository");
        };
        if let Some((_, why)) = self.damaged.iter().find(|(run, _)| run == id) {
            bail!("run {id} cannot be used: {why}");
        }
        let found = self.complete.iter().find(|run| run.manifest.id == *id);
        found.with_context(|| format!("there is no complete run {id}: see 'gitlab-backup list'"))
    }

    fn load(engine: &dyn Engine, cache: &Path, afresh: impl Fn(&RunId) -> bool) -> Result<Self> {
        let mut runs: BTreeMap<RunId, Vec<Snapshot>> = BTreeMap::new();
        for snapshot in engine.snapshots()? {
            runs.entry(snapshot.run.clone()).or_default().push(snapshot);
        }
        let mut catalog = Self::default();
        for (run, snapshots) in runs {
            match snapshots
                .iter()
                .find(|snapshot| snapshot.part == MANIFEST)
                .map(|snapshot| manifest(engine, snapshot, cache, afresh(&run)))
            {
                Some(Ok(manifest)) => catalog.complete.push(CompleteRun { manifest, snapshots }),
                Some(Err(error)) => catalog.damaged.push((run, format!("{error:#}"))),
                None => catalog.incomplete.push((run, snapshots)),
            }
        }
        Ok(catalog)
    }
}

fn manifest(engine: &dyn Engine, snapshot: &Snapshot, cache: &Path, afresh: bool) -> Result<Manifest> {
    // Snapshots never change: what was read once need not be read again.
    let cache = cache.join(format!("{}.json", snapshot.id));
    let cached: Option<Manifest> = read_json(&cache).ok().flatten();
    if let Some(manifest) = cached.filter(|manifest| !afresh && sound(manifest, snapshot).is_ok()) {
        return Ok(manifest);
    }
    let bytes = engine.read(&snapshot.id, Path::new(MANIFEST_PATH))?;
    let manifest = serde_json::from_slice(&bytes).with_context(|| format!("the manifest of run {} is damaged", snapshot.run))?;
    sound(&manifest, snapshot)?;
    if let Err(error) = write_json(&cache, &manifest) {
        tracing::debug!("{error:#}");
    }
    Ok(manifest)
}

/// Whoever can write the repository can write a manifest: it speaks of its own run, and of snapshots by their ids.
fn sound(manifest: &Manifest, snapshot: &Snapshot) -> Result<()> {
    ensure!(manifest.id == snapshot.run, "the manifest of run {} is damaged: it speaks of run {}", snapshot.run, manifest.id);
    for part in &manifest.parts {
        let is_id = (8..=64).contains(&part.snapshot.len()) && part.snapshot.bytes().all(|byte| byte.is_ascii_hexdigit());
        ensure!(is_id, "the manifest of run {} is damaged: part '{}' names no snapshot", snapshot.run, part.name);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_manifest_speaks_of_its_own_run_and_of_snapshots() {
        let of = |run: &str, snapshot: &str| -> Manifest {
            let part = format!(r#"{{"name":"files","snapshot":"{snapshot}","paths":[],"bytes":0,"files":0,"seconds":0.0,"checksum":""}}"#);
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
            run: run.parse().unwrap(),
            part: MANIFEST.to_owned(),
        };
        let id = "0123456789abcdef".repeat(4);
        assert!(sound(&of(run, &id), &own).is_ok());
        for (run, snapshot) in
            [("20271128T000000Z-bbbb", id.as_str()), (run, "--help"), (run, ""), (run, "latest"), (run, "0123456 9abcdef")]
        {
            assert!(sound(&of(run, snapshot), &own).is_err(), "{run} {snapshot}");
        }
    }
}
