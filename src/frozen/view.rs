//! A view of one or more paths, saved in a file between the window and the store step.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use crate::host::beneath::{Directory, KnownDirectory};
use crate::host::{durable, own};

use super::Tree;

/// The files to archive.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// The paths, none inside another.
    pub roots: Vec<ViewRoot>,
}

/// One path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewRoot {
    /// The path under which it is stored, the same in every run.
    pub path: PathBuf,
    /// Where it is read: the path itself, or in a snapshot.
    pub at: At,
    /// The directory with its staged content.
    pub staged: Option<KnownDirectory>,
    /// The device number of the original. It is stored with hard links, and every snapshot has
    /// another one.
    pub device: u64,
    /// The entry of the path itself, and everything below it.
    pub tree: Tree,
}

/// Translates the device numbers below a root to those of the original. A file is identified by its
/// device and inode number together.
#[derive(Debug, Clone, Copy)]
pub struct Devices {
    read: u64,
    original: u64,
}

impl ViewRoot {
    /// The translation of device numbers below it.
    pub fn devices(&self) -> Result<Devices> {
        Ok(Devices { read: self.tree.first()?.stat.device, original: self.device })
    }
}

impl Devices {
    /// The number for a file that was read on `device`. The numbers of the snapshot and the
    /// original are swapped and all others are kept, so different numbers always stay different.
    pub fn original(self, device: u64) -> u64 {
        match device {
            device if device == self.read => self.original,
            device if device == self.original => self.read,
            device => device,
        }
    }
}

/// A path to read from: a directory that [`Directory::open`] accepts, and a path beneath it that
/// leads through no link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct At {
    /// The directory.
    pub directory: PathBuf,
    /// The path beneath it; empty for the directory itself.
    pub inside: PathBuf,
}

impl At {
    /// The path itself.
    pub fn itself(path: &Path) -> Self {
        let (directory, inside) =
            path.parent().zip(path.file_name()).unwrap_or((path, OsStr::new("")));
        Self { directory: directory.to_owned(), inside: inside.into() }
    }

    /// Opens the parent directory, and returns it with the name in it.
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

    /// Loads a saved view; `None` if the file does not exist.
    pub fn load(path: &Path) -> Result<Option<Self>> {
        let file = match own::open(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            file => file.with_context(|| format!("cannot read {}", path.display()))?,
        };
        Self::read(file).map(Some).with_context(|| format!("{} is damaged", path.display()))
    }

    /// Reads a view. A damaged file cannot make it allocate more than the size of the file.
    fn read(file: File) -> Result<Self> {
        let mut left = file.metadata()?.len();
        let mut file = Summed::new(file);
        let length = file.number()?;
        left = left.checked_sub(length).context("it ends too early")?;
        let mut described = vec![0; usize::try_from(length)?];
        file.read_exact(&mut described)?;
        let mut view: Self = postcard::from_bytes(&described)?;
        for root in &mut view.roots {
            root.tree.load(&mut file, &mut left)?;
        }
        let sum = file.sum.digest();
        ensure!(file.number()? == sum, "its checksum does not match");
        Ok(view)
    }

    /// Saves the view. It is worthless after a reboot, so nothing waits for the disk.
    pub fn save(&self, path: &Path) -> Result<()> {
        durable::write_until_reboot(path, 0o600, |file| {
            let mut file = Summed::new(file);
            let described = postcard::to_stdvec(self)?;
            file.write_all(&(described.len() as u64).to_le_bytes())?;
            file.write_all(&described)?;
            for root in &self.roots {
                root.tree.save(&mut file)?;
            }
            let sum = file.sum.digest();
            Ok(file.write_all(&sum.to_le_bytes())?)
        })
    }

    /// Forgets paths that could not be stored, so that the next walk treats them as changed.
    pub fn forget<'a>(&mut self, paths: impl Iterator<Item = &'a Path>) -> Result<()> {
        for path in paths {
            for root in &mut self.roots {
                let Ok(below) = path.strip_prefix(&root.path) else { continue };
                root.tree.forget(below)?;
            }
        }
        Ok(())
    }
}

/// A file, and the checksum of everything read from it or written to it.
struct Summed<F> {
    file: F,
    sum: Xxh3,
}

impl<F> Summed<F> {
    fn new(file: F) -> Self {
        Self { file, sum: Xxh3::new() }
    }
}

impl<F: Read> Summed<F> {
    fn number(&mut self) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.read_exact(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }
}

impl<F: Read> Read for Summed<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.sum.update(&buffer[..count]);
        Ok(count)
    }
}

impl<F: Write> Write for Summed<F> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = self.file.write(buffer)?;
        self.sum.update(&buffer[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Exclude, Walk};
    use super::*;

    #[test]
    fn a_damaged_file_is_an_error_that_names_it() {
        let directory = tempfile::tempdir().unwrap();
        let (root, path) = (directory.path().join("root"), directory.path().join("view"));
        own::make(root.join("a/b")).unwrap();
        std::fs::write(root.join("a/file"), "content").unwrap();
        let exclude = Exclude::new(&[]).unwrap();
        let root = |_| Walk::new(&exclude).root(&root, &At::itself(&root), None).unwrap();
        let mut view = View { roots: (0..2).map(root).collect() };
        let missing = view.roots[0].path.join("a/file");
        view.forget(std::iter::once(missing.as_path())).unwrap();
        view.save(&path).unwrap();
        let whole = own::read(&path).unwrap();
        assert_eq!(View::load(&path).unwrap().unwrap(), view);
        let damaged = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            let error = format!("{:#}", View::load(&path).unwrap_err());
            assert!(error.starts_with(&format!("{} is damaged: ", path.display())), "{error}");
        };
        for end in 0..whole.len() {
            damaged(&whole[..end]);
        }
        for at in 0..whole.len() {
            for bits in [1, 0x80, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] ^= bits;
                damaged(&bytes);
            }
        }
    }

    #[test]
    fn two_file_systems_never_become_one() {
        // Of a snapshot (7) of the original (1), with others mounted in it.
        let devices = Devices { read: 7, original: 1 };
        assert_eq!([7, 1, 3].map(|device| devices.original(device)), [1, 7, 3]);
        let itself = Devices { read: 1, original: 1 };
        assert_eq!([1, 7].map(|device| itself.original(device)), [1, 7]);
    }
}
