//! The one way in which a file gets its final name.
//!
//! The content is written to a temporary file in the same directory, which only this process's
//! account can open. The temporary file then gets its mode, is written to disk, and is renamed; the
//! directory, which holds the new name, is written to disk last. A crash or a loss of power leaves
//! the old file or the new one under the final name, never a part of one. When a function of this
//! module returns, the caller can remove what the new file replaces (an old password, a journal).
//!
//! [`write()`] and its variants take paths in directories that only root can change. In directories
//! of other accounts, [`Directory`](super::beneath::Directory) does the same with an open
//! directory.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::{own, random};

/// How long a file has to last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lifetime {
    /// It must outlive a loss of power.
    Disk,
    /// It is worthless after a reboot: nothing waits for the disk.
    Boot,
}

/// What happens if there is a file under the final name already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Existing {
    /// The new file takes its place.
    Replace,
    /// It stays, and writing fails.
    Keep,
}

/// Writes `content` to `path`, which it replaces. The file has `mode` whatever the umask.
///
/// # Errors
/// If the directory is missing or cannot be written to.
pub fn write(path: &Path, mode: u32, content: impl AsRef<[u8]>) -> Result<()> {
    write_with(path, mode, |file| Ok(file.write_all(content.as_ref())?))
}

/// Like [`write()`], with the content that `fill` writes.
///
/// # Errors
/// As [`write()`], and those of `fill`.
pub fn write_with(
    path: &Path,
    mode: u32,
    fill: impl FnOnce(&mut File) -> Result<()>,
) -> Result<()> {
    write_at(path, mode, Lifetime::Disk, fill)
}

/// Like [`write_with`], for a file that is worthless after a reboot: the name is still given to the
/// whole file only, but nothing waits for the disk.
///
/// # Errors
/// As [`write_with`].
pub fn write_until_reboot(
    path: &Path,
    mode: u32,
    fill: impl FnOnce(&mut File) -> Result<()>,
) -> Result<()> {
    write_at(path, mode, Lifetime::Boot, fill)
}

/// Gives a file that is already whole another name in the same directory.
///
/// # Errors
/// If it is missing or cannot be renamed.
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    let rename = || -> Result<()> {
        let directory = own::open(directory_of(to)?)?;
        rustix::fs::renameat(CWD, from, CWD, to)?;
        Ok(directory.sync_all()?)
    };
    rename().with_context(|| format!("cannot rename {}", from.display()))
}

fn write_at(
    path: &Path,
    mode: u32,
    lifetime: Lifetime,
    fill: impl FnOnce(&mut File) -> Result<()>,
) -> Result<()> {
    let write = || -> Result<()> {
        let name = path.file_name().context("it has no name")?;
        let directory = own::open(directory_of(path)?)?;
        write_in(directory, name, mode, lifetime, Existing::Replace, fill)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

fn directory_of(path: &Path) -> Result<&Path> {
    let directory = path.parent().context("it has no directory")?;
    Ok(if directory.as_os_str().is_empty() { Path::new(".") } else { directory })
}

/// Writes the file `name` in an open directory, as the module's documentation says.
///
/// # Errors
/// If the directory cannot be written to, if `fill` fails, or if there is a file under `name` that
/// has to be kept. The temporary file is removed.
pub(super) fn write_in(
    directory: impl AsFd,
    name: &OsStr,
    mode: u32,
    lifetime: Lifetime,
    existing: Existing,
    fill: impl FnOnce(&mut File) -> Result<()>,
) -> Result<()> {
    let directory = directory.as_fd();
    // Not derived from `name`, which may be as long as a name can be.
    let temporary = format!(".gitlab-backup-{}.new", random::name()?);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(directory, &temporary, flags, Mode::RUSR | Mode::WUSR)?;
    let write = |mut file: File| -> Result<()> {
        fill(&mut file)?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?;
        if lifetime == Lifetime::Disk {
            file.sync_all()?;
        }
        match existing {
            Existing::Replace => {
                rustix::fs::renameat(directory, &temporary, directory, name)?;
            }
            Existing::Keep => rename_to_free_name(directory, &temporary, name)?,
        }
        if lifetime == Lifetime::Disk {
            // The name is the directory's content.
            rustix::fs::fsync(directory)?;
        }
        Ok(())
    };
    let written = write(File::from(opened));
    if written.is_err() {
        let _ = rustix::fs::unlinkat(directory, &temporary, AtFlags::empty());
    }
    written
}

/// Renames within a directory; fails with EEXIST if `name` is taken.
fn rename_to_free_name(
    directory: impl AsFd,
    temporary: &str,
    name: &OsStr,
) -> rustix::io::Result<()> {
    let directory = directory.as_fd();
    let flags = RenameFlags::NOREPLACE;
    match rustix::fs::renameat_with(directory, temporary, directory, name, flags) {
        // A file system that does not know the flag: a link does not replace anything either.
        Err(Errno::INVAL | Errno::NOSYS) => {
            rustix::fs::linkat(directory, temporary, directory, name, AtFlags::empty())?;
            rustix::fs::unlinkat(directory, temporary, AtFlags::empty())
        }
        renamed => renamed,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use anyhow::bail;

    use super::*;

    #[test]
    fn a_file_that_cannot_be_filled_leaves_the_old_one_and_nothing_beside_it() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("file");
        write(&path, 0o644, "old").unwrap();
        let failed = write_with(&path, 0o644, |file| {
            file.write_all(b"ne")?;
            bail!("the disk is full")
        });
        let error = format!("{:#}", failed.unwrap_err());
        assert_eq!(error, format!("cannot write {}: the disk is full", path.display()));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
    }

    #[test]
    fn nobody_else_can_open_a_file_before_it_is_whole() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("file");
        let mode = |file: &File| file.metadata().unwrap().permissions().mode() & 0o7777;
        write_with(&path, 0o644, |file| {
            assert_eq!(mode(file), 0o600);
            assert!(!path.exists());
            Ok(file.write_all(b"whole")?)
        })
        .unwrap();
        assert_eq!(mode(&File::open(&path).unwrap()), 0o644);
    }

    #[test]
    fn a_file_that_is_to_be_kept_is_kept() {
        let place = tempfile::tempdir().unwrap();
        let directory = File::open(place.path()).unwrap();
        let put = |content: &'static [u8]| {
            let name = OsStr::new("file");
            write_in(&directory, name, 0o600, Lifetime::Disk, Existing::Keep, |file| {
                Ok(file.write_all(content)?)
            })
        };
        put(b"first").unwrap();
        assert_eq!(put(b"second").unwrap_err().downcast_ref(), Some(&Errno::EXIST));
        assert_eq!(fs::read(place.path().join("file")).unwrap(), b"first");
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_longest_name_can_be_written() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("n".repeat(255));
        write(&path, 0o600, "").unwrap();
        rename(&path, &place.path().join("short")).unwrap();
        assert!(place.path().join("short").exists());
    }
}
