//! Whether what GitLab keeps on disk is in the backup: where it does is compared with what is
//! saved.

use std::path::{Path, PathBuf};

use anyhow::anyhow;

use crate::config::declared::{self, Declared, Remote};
use crate::config::host::Host;
use crate::config::{Config, Files};
use crate::finding::Finding;
use crate::frozen::Exclude;
use crate::host::own;

const WHAT: &str = "storages";

/// One finding for each directory that GitLab keeps something in and that no path has, and for each
/// configuration of GitLab's that cannot be read. A backup of one's own takes what it takes.
pub fn findings(config: &Config) -> Vec<Finding> {
    if config.files.command.is_some() {
        return Vec::new();
    }
    let host = Host::new("/");
    let own = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let (mut declared, mut computed, mut findings) = (Vec::new(), Vec::new(), Vec::new());
    let unread = |error: anyhow::Error| {
        Finding::warning(
            WHAT,
            format!("{error:#}: it cannot be told whether all that GitLab keeps is saved"),
        )
    };
    for rails in declared::rails(&host, &config.files.configuration) {
        match rails {
            Ok(rails) => {
                declared.extend(rails.directories());
                let remote = rails
                    .remote_storages(&own)
                    .into_iter()
                    .filter(|remote| !config.files.omit.contains(&remote.address));
                findings.extend(remote.map(|remote| elsewhere(&remote, &rails.file)));
                let words = |key: &str| {
                    format!(
                        "{key} of {} is computed by Ruby (ERB): it cannot be told whether all that GitLab keeps is saved",
                        rails.file.display()
                    )
                };
                computed.extend(
                    rails.computed_keys().iter().map(|key| Finding::warning(WHAT, words(key))),
                );
            }
            Err(error) => findings.push(unread(error)),
        }
    }
    for gitaly in declared::gitaly(&host) {
        match gitaly {
            Ok(gitaly) => declared.extend(gitaly.storages),
            Err(error) => findings.push(unread(error)),
        }
    }
    findings.extend(computed);
    declared.sort_by(|one, other| one.path.cmp(&other.path));
    declared.dedup_by(|one, other| one.path == other.path);
    let saved = Saved::of(&config.files);
    let missing: Vec<Finding> =
        declared.iter().filter(|declared| !saved.has(&declared.path)).map(uncovered).collect();
    if missing.is_empty() && !declared.is_empty() {
        findings.push(Finding::of(
            WHAT,
            Ok(format!("{} directories that GitLab is configured with: all saved", declared.len())),
        ));
    }
    findings.extend(missing);
    findings
}

fn elsewhere(remote: &Remote, file: &Path) -> Finding {
    let Remote { storage, address } = remote;
    let words = format!(
        "GitLab keeps repositories of storage '{storage}' at {address} (repositories.storages.{storage}.gitaly_address of {}), which is no name of \
         this host, and no backup has them: save them where they are, and name that address in [files] omit",
        file.display()
    );
    Finding::of(WHAT, Err(anyhow!(words)))
}

fn uncovered(declared: &Declared) -> Finding {
    let Declared { what, path, key, file, enabled } = declared;
    let real = own::canonical(path).ok().filter(|real| real != path);
    let leads = real.map(|real| format!(", which is {}", real.display())).unwrap_or_default();
    let keeps = if *enabled { "keeps" } else { "does not use any more, but once kept," };
    let words = format!(
        "GitLab {keeps} {what} in {}{leads} ({key} of {}), and no backup has that: add it to [files] paths, or to [files] omit if it is not to be saved",
        path.display(),
        file.display()
    );
    if *enabled { Finding::of(WHAT, Err(anyhow!(words))) } else { Finding::warning(WHAT, words) }
}

/// What is saved, and what is left out on purpose.
struct Saved {
    /// Where it really is: what a link leads to is in the backup only where that is saved itself.
    places: Vec<PathBuf>,
    omit: Vec<PathBuf>,
    exclude: Option<Exclude>,
}

impl Saved {
    fn of(files: &Files) -> Self {
        let places = files.places().filter_map(|saved| own::canonical(saved).ok()).collect();
        let omit = files.omit.iter().map(PathBuf::from).collect();
        Self { places, omit, exclude: Exclude::new(&files.exclude).ok() }
    }

    /// What is not there is nothing to be saved: GitLab makes it when it has something to keep
    /// there.
    fn has(&self, path: &Path) -> bool {
        let Ok(real) = own::canonical(path) else { return true };
        let omitted = |path: &Path| self.omit.iter().any(|omitted| path.starts_with(omitted));
        let left_out = |path: &Path| {
            omitted(path) || self.exclude.as_ref().is_some_and(|exclude| exclude.leaves_out(path))
        };
        self.places.iter().any(|saved| real.starts_with(saved)) || left_out(path) || left_out(&real)
    }
}
