//! Directories of ours in places that others may own.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rustix::fs::FileType;
use serde::{Deserialize, Serialize};

use super::{Directory, is_missing};
use crate::host::random;

/// A directory of ours: found again by what it is and not by its name alone, for whoever owns the
/// directory above can exchange it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Where it is.
    pub path: PathBuf,
    /// Its number in its file system; none before it is made.
    inode: Option<u64>,
}

impl Held {
    /// One that is not made yet, in `parent`: its name begins with `prefix` and ends as nobody can
    /// guess. To be written down before it is made, so that it can be found again whatever dies.
    ///
    /// # Errors
    /// If the kernel gives no random bytes.
    pub fn planned(parent: &Path, prefix: &str) -> Result<Self> {
        Ok(Self { path: parent.join(format!("{prefix}{}", random::name()?)), inode: None })
    }

    /// Makes it, closed to others.
    ///
    /// # Errors
    /// If there is anything in its place.
    pub fn make(&mut self) -> Result<Directory> {
        let (parent, name) = Directory::of(&self.path)?;
        let made = parent.make(&name, 0o700)?;
        self.inode = Some(made.stat()?.st_ino);
        Ok(made)
    }

    /// Opens it.
    ///
    /// # Errors
    /// If it is not there, or is not the one that was made.
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

    /// What is in it, or nothing if it was never made or is gone.
    ///
    /// # Errors
    /// As [`Held::open`], but for that it is not there.
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

    /// Removes it with all in it. That it is gone is no failure.
    ///
    /// # Errors
    /// If something else is in its place, which stays.
    pub fn remove(&self) -> Result<()> {
        let Some(found) = self.open_if_there()? else { return Ok(()) };
        drop(found);
        let (parent, name) = Directory::of(&self.path)?;
        parent.remove(&name)
    }

    /// The same, if it holds nothing but empty directories; anything else stays and is an error.
    pub fn remove_empty(&self) -> Result<()> {
        if self.open_if_there()?.is_none() {
            return Ok(());
        }
        let (parent, name) = Directory::of(&self.path)?;
        parent.remove_empty(&name)
    }

    /// One that was written down and whose process died before it could write down what it made is
    /// ours by its name, that nobody can guess, and its owner.
    fn is(&self, found: &Directory) -> Result<bool> {
        let stat = found.stat()?;
        let own = stat.st_uid == rustix::process::geteuid().as_raw()
            && FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        Ok(own && self.inode.is_none_or(|inode| inode == stat.st_ino))
    }

    /// Its name.
    pub fn name(&self) -> OsString {
        self.path.file_name().unwrap_or(OsStr::from_bytes(b".")).to_owned()
    }
}

/// Whether the directory above `path` is there.
fn above(path: &Path) -> Result<bool> {
    let parent = path.parent().with_context(|| format!("{} has no name", path.display()))?;
    match Directory::open(parent) {
        Ok(_) => Ok(true),
        Err(error) if is_missing(&error) => Ok(false),
        Err(error) => Err(error),
    }
}
