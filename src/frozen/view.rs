//! A view of one or more paths, kept in a file between the window and the store.

use std::fs;
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::entry::{Entry, Stat};

/// The files, as they are to be archived.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// The paths, none inside another.
    pub roots: Vec<Root>,
}

/// One path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// What it is called, always: so it is found in the repository.
    pub path: PathBuf,
    /// Where it can be read: itself, or in a snapshot.
    pub at: PathBuf,
    /// Where its staged content is.
    pub staged: Option<PathBuf>,
    /// The device of the original: a snapshot has another each time, and the metadata of hard links has it in it.
    pub device: u64,
    /// The path's own entry.
    pub entry: Entry,
}

impl View {
    /// The paths.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.roots.iter().map(|root| root.path.clone()).collect()
    }

    /// The view that was saved there; none if there is no such file.
    pub fn load(path: &Path) -> Result<Option<Self>> {
        let file = match fs::File::open(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            file => file.with_context(|| format!("cannot read {}", path.display()))?,
        };
        let mut buffer = Vec::new();
        std::io::Read::read_to_end(&mut BufReader::new(file), &mut buffer).with_context(|| format!("cannot read {}", path.display()))?;
        postcard::from_bytes(&buffer).map(Some).with_context(|| format!("{} is damaged", path.display()))
    }

    /// Saves it under its final name when it is whole. It need not outlive the machine, so nothing waits for the disk.
    pub fn save(&self, path: &Path) -> Result<()> {
        let write = || -> Result<()> {
            let mut file = tempfile::NamedTempFile::new_in(path.parent().context("no directory")?)?;
            let mut writer = BufWriter::new(file.as_file_mut());
            postcard::to_io(self, &mut writer)?;
            writer.flush()?;
            drop(writer);
            file.persist(path)?;
            Ok(())
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }

    /// Of what could not be stored, nothing is known: the next look takes it for changed.
    pub fn forget<'a>(&mut self, paths: impl Iterator<Item = &'a Path>) {
        for path in paths {
            for root in &mut self.roots {
                let Ok(below) = path.strip_prefix(&root.path) else { continue };
                let mut entry = Some(&mut root.entry);
                for name in below {
                    entry = entry.and_then(|entry| {
                        let at = entry.children.binary_search_by(|child| child.name().cmp(name)).ok()?;
                        entry.children.get_mut(at)
                    });
                }
                if let Some(entry) = entry {
                    unknown(&mut entry.stat);
                }
            }
        }
    }
}

fn unknown(stat: &mut Stat) {
    stat.changed.seconds = i64::MIN;
}
