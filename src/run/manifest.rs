//! Writes the manifest, which makes the run complete.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::catalog::MANIFEST;
use crate::config::Config;
use crate::host::{self, beneath};
use crate::machine::Base;
use crate::open;
use crate::paths::{self, RootDirectory};
use crate::repository::{Engine, Snapshot, patience};
use crate::run::settings;
use crate::runs::record::write_json;
use crate::runs::{Component, Manifest, Newest, Record, parts};
use crate::stores;
use crate::stores::files::{self, PRESYNC, PartDestination};
use crate::values::RunId;

/// The file with GitLab's version, of each layout.
const GITLAB_VERSION: [&str; 2] =
    ["/home/git/gitlab/VERSION", "/opt/gitlab/embedded/service/gitlab-rails/VERSION"];

/// The largest version file that is read, bytes.
const VERSION_SIZE: u64 = 4096;

/// Stores the settings, checks that every part of the run is recorded, and stores the manifest.
/// Then removes the first pass, whose data the run now holds.
pub fn write(config: &Config, base: Base<'_>) -> Result<()> {
    let Base { clock, root, .. } = base;
    let record = Record::current(root)?
        .context("no run is going on: this helper is started by its unit only")?;
    let engine = open::in_run(config, root)?;
    let destination = PartDestination { engine: &*engine, root };
    parts::record(root, &settings::store(config, destination)?)?;
    let parts = parts::read(root)?;
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
        let captured = store.captured(root)?;
        files::record_left_out(root, captured.left_out.iter())?;
        versions.extend(captured.versions);
        databases.extend(captured.databases);
    }
    let manifest = Manifest {
        id: record.id.clone(),
        host: host::name(),
        started: record.started,
        finished: clock.now(),
        complete: true,
        downtime_seconds: record.downtime.map(|downtime| downtime.total()),
        downtime: record.downtime,
        downtime_longer_than: record.downtime_longer_than,
        quiesced: record.quiesced,
        warnings: record.warnings,
        versions,
        parts,
        databases,
        after: newest_run(root),
    };
    write_json(&root.at(paths::MANIFEST), &manifest)?;
    // Also its path in the snapshot, where the catalog reads it: not below the root directory.
    files::store_live(config, destination, MANIFEST, &[paths::MANIFEST.into()])?;
    remove_first_passes(&*engine, &manifest.host)
}

/// Removes the first passes of this host. Another host that shares the repository may still need
/// its own.
fn remove_first_passes(engine: &dyn Engine, host: &str) -> Result<()> {
    let is_own = |snapshot: &Snapshot| snapshot.part == PRESYNC && snapshot.host == host;
    let passes: Vec<String> =
        engine.snapshots()?.into_iter().filter(is_own).map(|snapshot| snapshot.id).collect();
    if passes.is_empty() { Ok(()) } else { engine.forget(&passes, patience::LONG) }
}

/// The newest complete run before this one. The manifest names it to record the order of runs, so
/// an unreadable record is only a warning.
fn newest_run(root: &RootDirectory) -> Option<RunId> {
    let newest = Newest::load(root).unwrap_or_else(|error| {
        tracing::warn!("{error:#}");
        None
    });
    newest.map(|newest| newest.run)
}

fn component(name: &str, version: &str) -> Component {
    Component { name: name.to_owned(), version: version.to_owned() }
}

/// The version of GitLab on this host, with its edition (`17.5.0-ee`); `unknown` if it is not
/// found where a known layout has it.
pub fn gitlab_version() -> String {
    // The file is untrusted: GitLab's account can write it.
    let read =
        |path: &&str| parse_version(&beneath::read_text(Path::new(path), VERSION_SIZE).ok()?);
    GITLAB_VERSION.iter().find_map(read).unwrap_or_else(|| "unknown".to_owned())
}

/// Parses a version; `None` if the text has other characters or is too long.
fn parse_version(text: &str) -> Option<String> {
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
    fn text_that_is_no_version_is_refused() {
        assert_eq!(parse_version("17.5.0-ee\n"), Some("17.5.0-ee".to_owned()));
        for text in
            ["", "root:x:0:0:root:/root:/bin/bash", "17.5\n17.6", "\u{1b}[2J17.5", &"1".repeat(65)]
        {
            assert_eq!(parse_version(text), None, "{text:?}");
        }
    }
}
