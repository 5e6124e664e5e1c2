//! Writes the manifest, and with it makes the run complete.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;

use crate::catalog::{MANIFEST, MANIFEST_PATH};
use crate::config::Config;
use crate::host::{self, beneath, own};
use crate::open;
use crate::paths::RootDirectory;
use crate::repository::{Snapshot, patience};
use crate::run::settings;
use crate::runs::record::{read_json, write_json};
use crate::runs::{Component, Manifest, Newest, Part, Record};
use crate::stores;
use crate::stores::files::{self, PARTS, PRESYNC};
use crate::values::RunId;

/// GitLab's version, by layout.
const GITLAB_VERSION: [&str; 2] =
    ["/home/git/gitlab/VERSION", "/opt/gitlab/embedded/service/gitlab-rails/VERSION"];

/// Bytes of the file with it, at most.
const VERSION_SIZE: u64 = 4096;

/// Checks that every part is there, stores the manifest and drops the first pass, whose content the
/// run now holds.
pub fn write(config: &Config) -> Result<()> {
    let record = Record::current(&RootDirectory::host())?
        .context("no run is going on: this helper is started by its unit only")?;
    let engine = open::in_run(config)?;
    files::record_part(&settings::store(config, &*engine)?)?;
    let parts = parts(&RootDirectory::host())?;
    let mut versions = vec![
        component("gitlab-backup", env!("CARGO_PKG_VERSION")),
        component("gitlab", &gitlab_version()),
    ];
    let mut databases = Vec::new();
    for store in stores::all().into_iter().filter(|store| store.is_backed_up(config)) {
        let name = store.name();
        ensure!(
            parts.iter().any(|part| part.name == name),
            "part '{name}' is missing: the run is not complete"
        );
        let captured = store.captured()?;
        files::record_left_out(captured.left_out.iter())?;
        versions.extend(captured.versions);
        databases.extend(captured.databases);
    }
    let manifest = Manifest {
        id: record.id.clone(),
        host: host::name(),
        started: record.started,
        finished: Timestamp::now(),
        complete: true,
        downtime_seconds: record.downtime.map(|downtime| downtime.total()),
        downtime: record.downtime,
        downtime_longer_than: record.downtime_longer_than,
        versions,
        parts,
        databases,
        after: newest(),
    };
    write_json(Path::new(MANIFEST_PATH), &manifest)?;
    files::store_live(config, &*engine, MANIFEST, &[MANIFEST_PATH.into()])?;
    // Another host's may be under way.
    let ours = |snapshot: &Snapshot| snapshot.part == PRESYNC && snapshot.host == manifest.host;
    let passes: Vec<String> =
        engine.snapshots()?.into_iter().filter(ours).map(|snapshot| snapshot.id).collect();
    if !passes.is_empty() {
        engine.forget(&passes, patience::LONG)?;
    }
    Ok(())
}

/// The newest complete run. It only says in which order they came: what cannot be read fails no
/// backup.
fn newest() -> Option<RunId> {
    let newest = Newest::load(&RootDirectory::host()).unwrap_or_else(|error| {
        tracing::warn!("{error:#}");
        None
    });
    newest.map(|newest| newest.run)
}

/// What the parts left word of, while the run goes on.
pub fn parts(root: &RootDirectory) -> Result<Vec<Part>> {
    let mut parts: Vec<Part> = Vec::new();
    let directory = root.at(PARTS);
    let entries = own::entries(&directory);
    for entry in entries.with_context(|| format!("cannot read {}", directory.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            parts.extend(read_json::<Part>(&path)?);
        }
    }
    parts.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(parts)
}

fn component(name: &str, version: &str) -> Component {
    Component { name: name.to_owned(), version: version.to_owned() }
}

/// The version of GitLab on this host, with its edition (`17.5.0-ee`); `unknown` where no layout
/// has it.
pub fn gitlab_version() -> String {
    // GitLab's user may have put anything there.
    let read = |path: &&str| version(&beneath::read_text(Path::new(path), VERSION_SIZE).ok()?);
    GITLAB_VERSION.iter().find_map(read).unwrap_or_else(|| "unknown".to_owned())
}

/// A version, if the text is one.
fn version(text: &str) -> Option<String> {
    let text = text.trim();
    let fits = !text.is_empty()
        && text.len() <= 64
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "._+~-".contains(c));
    fits.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_version_is_one() {
        assert_eq!(version("17.5.0-ee\n"), Some("17.5.0-ee".to_owned()));
        for text in
            ["", "root:x:0:0:root:/root:/bin/bash", "17.5\n17.6", "\u{1b}[2J17.5", &"1".repeat(65)]
        {
            assert_eq!(version(text), None, "{text:?}");
        }
    }
}
