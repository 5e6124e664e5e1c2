//! Finds links that lead to directories in no backup, such as `@hashed` moved to a larger disk with
//! a link in its place. A backup stores the link and not the directory.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use rustix::fs::FileType;

use crate::config::{Config, Files};
use crate::finding::Finding;
use crate::frozen::{Exclude, View};
use crate::host::beneath::Directory;
use crate::host::{own, text};

/// How many such directories are named. The others are only counted.
const NAMED: usize = 10;
/// How many levels `check` walks: Gitaly's `@hashed/ab/cd`. A run walks every entry anyway.
const DEPTH: usize = 4;

/// Directories outside the backup, with the links that lead there.
pub struct Outside {
    saved: Vec<PathBuf>,
    /// By the directory: the first link that leads there, and how many links do.
    found: BTreeMap<PathBuf, (PathBuf, usize)>,
}

impl Outside {
    /// An empty collection. The backup holds the paths of `files`.
    pub fn new(files: &Files) -> Self {
        Self { saved: files.places().cloned().collect(), found: BTreeMap::new() }
    }

    /// Adds the links in `view`.
    pub fn add_links_of(&mut self, view: &View) -> Result<()> {
        for root in &view.roots {
            let mut entries = root.tree.entries(&root.path);
            while let Some(entry) = entries.next().transpose()? {
                if let Some(target) = entry.extra.and_then(|extra| extra.target) {
                    self.add(entries.path().to_owned(), Path::new(OsStr::from_bytes(&target)));
                }
            }
        }
        Ok(())
    }

    /// Adds the links in the directory `path`, to a depth of `DEPTH`. Directories below it that
    /// cannot be read are passed over: other checks report them.
    fn walk(&mut self, path: &Path, exclude: &Exclude) -> Result<()> {
        let (above, name) = Directory::of(path)?;
        let directory = above.below(Path::new(&name))?;
        let mut open = vec![(directory.entries()?.into_iter(), directory)];
        loop {
            let level = open.len();
            let Some((names, directory)) = open.last_mut() else { return Ok(()) };
            let Some((name, kind)) = names.next() else {
                open.pop();
                continue;
            };
            let path = directory.path().join(&name);
            match kind {
                FileType::Symlink if !exclude.matches(&path, false) => {
                    // The link may have been removed in the meantime.
                    if let Ok(target) = directory.target(&name) {
                        self.add(path, Path::new(OsStr::from_bytes(&target)));
                    }
                }
                FileType::Directory if level < DEPTH && !exclude.matches(&path, true) => {
                    let inner = directory
                        .below(Path::new(&name))
                        .and_then(|inner| Ok((inner.entries()?.into_iter(), inner)));
                    open.extend(inner.ok());
                }
                _ => {}
            }
        }
    }

    fn add(&mut self, link: PathBuf, target: &Path) {
        let target = link.parent().unwrap_or(Path::new("/")).join(target);
        // Following the link is safe: the target is only named, never read or stored.
        let Ok(real) = own::canonical(&target) else { return };
        if self.saved.iter().any(|path| real.starts_with(path)) || !own::is_directory(&real) {
            return;
        }
        self.found.entry(real).or_insert((link, 0)).1 += 1;
    }

    /// One line for each directory, for a report.
    pub fn describe(&self) -> Vec<String> {
        let line = |(real, (link, count)): (&PathBuf, &(PathBuf, usize))| {
            let links = if *count > 1 { format!(" ({count} links do)") } else { String::new() };
            format!(
                "{} leads to {}{links}, and that directory is not in the backup: add it to \
                 [files] paths",
                text::path(link),
                text::path(real)
            )
        };
        let mut lines: Vec<String> = self.found.iter().take(NAMED).map(line).collect();
        if self.found.len() > NAMED {
            lines.push(format!(
                "links lead to {} more directories that are not in the backup",
                self.found.len() - NAMED
            ));
        }
        lines
    }
}

/// Checks the configured directories, to a depth of `DEPTH`, for links that lead outside.
pub fn findings(config: &Config) -> Vec<Finding> {
    // A directory that cannot be read is an error of another check.
    let lines = walk_paths(config).unwrap_or_default();
    lines.into_iter().map(|line| Finding::warning("files", line)).collect()
}

fn walk_paths(config: &Config) -> Result<Vec<String>> {
    let exclude = Exclude::new(&config.files.exclude)?;
    let mut outside = Outside::new(&config.files);
    for path in config.files.paths.iter().filter(|path| own::is_directory(path)) {
        outside.walk(path, &exclude)?;
    }
    Ok(outside.describe())
}
