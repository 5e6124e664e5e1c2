//! Links to directories that are in no backup: `@hashed` moved to a larger disk, with a link left
//! in its place. What is stored of it is the link.

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

/// How many such directories are named.
const NAMED: usize = 10;
/// How deep a look by hand goes: Gitaly's `@hashed/ab/cd`. A run looks at every entry anyway.
const DEPTH: usize = 4;

/// Directories outside of all that is saved, with the links that lead there.
pub struct Outside {
    saved: Vec<PathBuf>,
    found: BTreeMap<PathBuf, (PathBuf, usize)>,
}

impl Outside {
    /// None yet. `files` is what is saved.
    pub fn of(files: &Files) -> Self {
        Self { saved: files.places().cloned().collect(), found: BTreeMap::new() }
    }

    /// Those in a view.
    pub fn look(&mut self, view: &View) -> Result<()> {
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

    /// Those in a directory and some levels below it. What cannot be read is for others to tell.
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
                    // It may be gone meanwhile.
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
        // Only looked at, to tell of it: nothing there is read or stored.
        let Ok(real) = own::canonical(&target) else { return };
        if self.saved.iter().any(|path| real.starts_with(path)) || !own::is_directory(&real) {
            return;
        }
        self.found.entry(real).or_insert((link, 0)).1 += 1;
    }

    /// A line for each directory.
    pub fn told(&self) -> Vec<String> {
        let line = |(real, (link, count)): (&PathBuf, &(PathBuf, usize))| {
            let more =
                if *count > 1 { format!(", as {} more do", count - 1) } else { String::new() };
            format!(
                "{} leads to {}{more}, and that directory is not in the backup: name it in [files] paths",
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

/// Those that are seen at a look by hand.
pub fn findings(config: &Config) -> Vec<Finding> {
    // What keeps it from being looked at is found elsewhere.
    let lines = looked(config).unwrap_or_default();
    lines.into_iter().map(|line| Finding::warning("files", line)).collect()
}

fn looked(config: &Config) -> Result<Vec<String>> {
    let exclude = Exclude::new(&config.files.exclude)?;
    let mut outside = Outside::of(&config.files);
    for path in config.files.paths.iter().filter(|path| own::is_directory(path)) {
        outside.walk(path, &exclude)?;
    }
    Ok(outside.told())
}
