//! A view of one or more paths, kept in a file between the window and the store.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::host::beneath::{Directory, Held};
use crate::host::own;

use super::Tree;
use super::entry::Stat;

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
    pub at: At,
    /// Where its staged content is.
    pub staged: Option<Held>,
    /// The device of the original: a snapshot has another each time, and the metadata of hard links has it in it.
    pub device: u64,
    /// The path's own entry, and all below it.
    pub tree: Tree,
}

/// The numbers of the file systems below a root, as the host has them: a file is known by its number in its file system, and by both only.
#[derive(Debug, Clone, Copy)]
pub struct Devices {
    read: u64,
    original: u64,
}

impl Root {
    /// The numbers of the file systems below it.
    pub fn devices(&self) -> Devices {
        Devices { read: self.tree.entries().first().map_or(self.device, |entry| entry.stat.device), original: self.device }
    }
}

impl Devices {
    /// The number on the host of what was read as `device`. The snapshot's is exchanged for the original's, and every other is as it was read, so
    /// two that differ always stay two.
    pub fn original(self, device: u64) -> u64 {
        match device {
            device if device == self.read => self.original,
            device if device == self.original => self.read,
            device => device,
        }
    }
}

/// Where something can be read: beneath a directory that is reached as [`Directory::open`] does, and from there on through no link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct At {
    /// The directory.
    pub directory: PathBuf,
    /// The way beneath it; empty for the directory itself.
    pub inside: PathBuf,
}

impl At {
    /// The path itself.
    pub fn itself(path: &Path) -> Self {
        let (directory, inside) = path.parent().zip(path.file_name()).unwrap_or((path, OsStr::new("")));
        Self { directory: directory.to_owned(), inside: inside.into() }
    }

    /// The directory in which it is, and its name there.
    ///
    /// # Errors
    /// If that directory cannot be opened.
    pub fn open(&self) -> Result<(Directory, OsString)> {
        let directory = Directory::open(&self.directory)?;
        match self.inside.parent().zip(self.inside.file_name()) {
            Some((parent, name)) => Ok((directory.below(parent)?, name.to_owned())),
            None => Ok((directory, ".".into())),
        }
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.directory.join(&self.inside).display().fmt(f)
    }
}

impl View {
    /// The paths.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.roots.iter().map(|root| root.path.clone()).collect()
    }

    /// The view that was saved there; none if there is no such file.
    pub fn load(path: &Path) -> Result<Option<Self>> {
        let file = match own::open(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            file => file.with_context(|| format!("cannot read {}", path.display()))?,
        };
        let mut buffer = Vec::new();
        std::io::Read::read_to_end(&mut BufReader::new(file), &mut buffer).with_context(|| format!("cannot read {}", path.display()))?;
        postcard::from_bytes(&buffer).map(Some).with_context(|| format!("{} is damaged", path.display()))
    }

    /// Saves it under its final name when it is whole. It need not outlive the machine, so nothing waits for the disk.
    pub fn save(&self, path: &Path) -> Result<()> {
        own::replace(path, 0o600, false, |file| {
            let mut writer = BufWriter::new(file);
            postcard::to_io(self, &mut writer)?;
            writer.flush().map_err(Into::into)
        })
    }

    /// Of what could not be stored, nothing is known: the next look takes it for changed.
    pub fn forget<'a>(&mut self, paths: impl Iterator<Item = &'a Path>) {
        for path in paths {
            for root in &mut self.roots {
                let Ok(below) = path.strip_prefix(&root.path) else { continue };
                if let Some(entry) = root.tree.get_mut(below) {
                    unknown(&mut entry.stat);
                }
            }
        }
    }
}

fn unknown(stat: &mut Stat) {
    stat.changed.seconds = i64::MIN;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_file_systems_never_become_one() {
        // Of a snapshot (7) of the original (1), with others mounted in it.
        let devices = Devices { read: 7, original: 1 };
        assert_eq!([7, 1, 3].map(|device| devices.original(device)), [1, 7, 3]);
        let itself = Devices { read: 1, original: 1 };
        assert_eq!([1, 7].map(|device| itself.original(device)), [1, 7]);
    }
}
