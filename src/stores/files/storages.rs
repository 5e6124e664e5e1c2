//! Checks that every directory in which GitLab's configuration says that it keeps data is in the
//! backup.

use std::path::{Path, PathBuf};

use anyhow::anyhow;

use crate::config::declared::{self, Declared, Rails, Remote};
use crate::config::host::Host;
use crate::config::{Config, Files};
use crate::finding::Finding;
use crate::frozen::Exclude;
use crate::host::own;

const WHAT: &str = "storages";

/// A finding for each directory of GitLab's that no configured path covers, for each storage on
/// another host, and for each configuration of GitLab that cannot be read. Empty if `[files]
/// command` replaces the file store.
pub fn findings(config: &Config) -> Vec<Finding> {
    if config.files.command.is_some() {
        return Vec::new();
    }
    let host = Host::new("/");
    let (mut declared, mut computed, mut findings) = (Vec::new(), Vec::new(), Vec::new());
    for rails in declared::rails(&host, &config.files.configuration) {
        match rails {
            Ok(rails) => {
                declared.extend(rails.directories());
                findings.extend(on_other_hosts(&rails, config));
                computed
                    .extend(rails.computed_keys().iter().map(|key| computed_by_ruby(key, &rails)));
            }
            Err(error) => findings.push(unreadable(&error)),
        }
    }
    for gitaly in declared::gitaly(&host) {
        match gitaly {
            Ok(gitaly) => declared.extend(gitaly.storages),
            Err(error) => findings.push(unreadable(&error)),
        }
    }
    findings.extend(computed);
    declared.sort_by(|one, other| one.path.cmp(&other.path));
    declared.dedup_by(|one, other| one.path == other.path);
    findings.extend(compare_with_backup(&declared, &config.files));
    findings
}

/// An error for each declared directory that is not in the backup; ok if all are.
fn compare_with_backup(declared: &[Declared], files: &Files) -> Vec<Finding> {
    let saved = Saved::new(files);
    let missing: Vec<Finding> =
        declared.iter().filter(|declared| !saved.covers(&declared.path)).map(uncovered).collect();
    if missing.is_empty() && !declared.is_empty() {
        return vec![Finding::of(
            WHAT,
            Ok(format!("{} directories that GitLab is configured with: all saved", declared.len())),
        )];
    }
    missing
}

fn unreadable(error: &anyhow::Error) -> Finding {
    let words = format!("{error:#}: cannot check whether the backup holds all of GitLab's data");
    Finding::warning(WHAT, words)
}

fn computed_by_ruby(key: &str, rails: &Rails) -> Finding {
    let words = format!(
        "{key} of {} is computed by Ruby (ERB): cannot check whether the backup holds all of \
         GitLab's data",
        rails.file.display()
    );
    Finding::warning(WHAT, words)
}

/// An error for each storage on another host, unless its address is in `[files] omit`.
fn on_other_hosts(rails: &Rails, config: &Config) -> Vec<Finding> {
    let this_host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let remote = rails.remote_storages(&this_host).into_iter();
    remote
        .filter(|remote| !config.files.omit.contains(&remote.address))
        .map(|Remote { storage, address }| {
            let words = format!(
                "GitLab keeps repositories of storage '{storage}' at {address} \
                 (repositories.storages.{storage}.gitaly_address of {}), which is not this host, \
                 and no backup holds them: back them up there, and add that address to [files] \
                 omit",
                rails.file.display()
            );
            Finding::of(WHAT, Err(anyhow!(words)))
        })
        .collect()
}

fn uncovered(declared: &Declared) -> Finding {
    let Declared { what, path, key, file, enabled } = declared;
    let real = own::canonical(path).ok().filter(|real| real != path);
    let leads = real.map(|real| format!(", which is {}", real.display())).unwrap_or_default();
    let keeps = if *enabled { "keeps" } else { "no longer keeps, but may have kept," };
    let words = format!(
        "GitLab {keeps} {what} in {}{leads} ({key} of {}), and no backup holds it: add it to \
         [files] paths, or to [files] omit to leave it out",
        path.display(),
        file.display()
    );
    if *enabled { Finding::of(WHAT, Err(anyhow!(words))) } else { Finding::warning(WHAT, words) }
}

/// The paths that the backup holds, and those that it leaves out on purpose.
struct Saved {
    /// Real paths, because a backup stores links and does not follow them.
    places: Vec<PathBuf>,
    omit: Vec<PathBuf>,
    exclude: Option<Exclude>,
}

impl Saved {
    fn new(files: &Files) -> Self {
        let places = files.places().filter_map(|saved| own::canonical(saved).ok()).collect();
        let omit = files.omit.iter().map(PathBuf::from).collect();
        Self { places, omit, exclude: Exclude::new(&files.exclude).ok() }
    }

    /// Whether `path` is in the backup or left out on purpose. A path that does not exist counts as
    /// covered: GitLab creates it when it has data for it.
    fn covers(&self, path: &Path) -> bool {
        let Ok(real) = own::canonical(path) else { return true };
        let omitted = |path: &Path| self.omit.iter().any(|omitted| path.starts_with(omitted));
        let left_out = |path: &Path| {
            omitted(path) || self.exclude.as_ref().is_some_and(|exclude| exclude.leaves_out(path))
        };
        self.places.iter().any(|saved| real.starts_with(saved)) || left_out(path) || left_out(&real)
    }
}
