//! Directories that this program creates in directories of other users.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rustix::fs::FileType;
use serde::{Deserialize, Serialize};

use super::{Directory, is_missing};
use crate::host::random;

/// A directory that this program has created. It is identified by its inode and not only by its
/// name, because the owner of the parent directory can exchange it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownDirectory {
    /// The path.
    pub path: PathBuf,
    /// The inode number; none before it is created.
    inode: Option<u64>,
}

impl KnownDirectory {
    /// Chooses a name in `parent`: `prefix` and an unpredictable rest. Record it before
    /// [`KnownDirectory::make`], so that the directory can be found after a crash.
    ///
    /// # Errors
    /// If the kernel provides no random bytes.
    pub fn planned(parent: &Path, prefix: &str) -> Result<Self> {
        Ok(Self { path: parent.join(format!("{prefix}{}", random::name()?)), inode: None })
    }

    /// Creates the directory, with mode 0700.
    ///
    /// # Errors
    /// If the name exists already.
    pub fn make(&mut self) -> Result<Directory> {
        let (parent, name) = Directory::of(&self.path)?;
        let made = parent.make(&name, 0o700)?;
        self.inode = Some(made.stat()?.st_ino);
        Ok(made)
    }

    /// Opens the directory.
    ///
    /// # Errors
    /// If it does not exist, or is not the one that was created.
    pub fn open(&self) -> Result<Directory> {
        let (parent, name) = Directory::of(&self.path)?;
        let found = parent.below(Path::new(&name))?;
        ensure!(
            self.is(&found)?,
            "{} is not the directory that was made there: whoever owns {} has exchanged it",
            self.path.display(),
            parent.path().display()
        );
        Ok(found)
    }

    /// Opens the directory, if it exists.
    ///
    /// # Errors
    /// If it is not the one that was created.
    pub fn open_if_there(&self) -> Result<Option<Directory>> {
        if !above(&self.path)? {
            return Ok(None);
        }
        let (parent, name) = Directory::of(&self.path)?;
        match parent.look(Path::new(&name))? {
            Some(_) => self.open().map(Some),
            None => Ok(None),
        }
    }

    /// Removes the directory recursively, if it exists.
    ///
    /// # Errors
    /// If it is not the one that was created; that one is not removed.
    pub fn remove(&self) -> Result<()> {
        let Some(found) = self.open_if_there()? else { return Ok(()) };
        drop(found);
        let (parent, name) = Directory::of(&self.path)?;
        parent.remove(&name)
    }

    /// Removes the directory, if it exists. Fails if it contains anything except empty directories.
    pub fn remove_empty(&self) -> Result<()> {
        if self.open_if_there()?.is_none() {
            return Ok(());
        }
        let (parent, name) = Directory::of(&self.path)?;
        parent.remove_empty(&name)
    }

    /// Whether `found` is the directory that was created. If the inode was not recorded because of
    /// a crash, its owner and its unpredictable name decide.
    fn is(&self, found: &Directory) -> Result<bool> {
        let stat = found.stat()?;
        let own = stat.st_uid == rustix::process::geteuid().as_raw()
            && FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        Ok(own && self.inode.is_none_or(|inode| inode == stat.st_ino))
    }

    /// The name of the directory.
    pub fn name(&self) -> OsString {
        self.path.file_name().unwrap_or(OsStr::from_bytes(b".")).to_owned()
    }
}

/// Whether the parent directory of `path` exists.
fn above(path: &Path) -> Result<bool> {
    let parent = path.parent().with_context(|| format!("{} has no name", path.display()))?;
    match Directory::open(parent) {
        Ok(_) => Ok(true),
        Err(error) if is_missing(&error) => Ok(false),
        Err(error) => Err(error),
    }
}
