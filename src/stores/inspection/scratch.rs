//! Where a verify lays out and starts what it looks at: a directory that is gone afterwards, at the
//! latest with the next verify.
//!
//! Others can make things beside it, and lock what they can open: no lock is waited for, and the
//! one that tells a verify at work from one that was killed is on a file that nobody else can open.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use nix::unistd::User;
use rustix::fs::{FileType, FlockOperation, flock, fstatvfs};

use crate::host::beneath::Directory;
use crate::host::random;

const PREFIX: &str = "gitlab-backup-verify-";
/// What it begins with until it is locked.
const HIDDEN: &str = ".";
const LOCK: &str = "lock";
/// One that was not locked within this time never will be.
const BEGINNING: Duration = Duration::from_secs(3600);

/// The directory. Locked while its process lives, so that what is left of a killed one can be told
/// from one at work.
pub(crate) struct Scratch {
    parent: Directory,
    name: OsString,
    directory: Directory,
    _lock: File,
}

impl Scratch {
    /// Makes one below `parent`, and removes there what killed verifies left.
    pub(crate) fn new(parent: &Path) -> Result<Self> {
        let make = || -> Result<Self> {
            let parent = Directory::open(parent)?;
            let stat = parent.stat()?;
            let alone = stat.st_mode & 0o022 == 0 || stat.st_mode & 0o1000 != 0;
            ensure!(alone, "others can rename what is in it: 'chmod +t' keeps them from it");
            sweep(&parent)?;
            let name = format!("{PREFIX}{}", &random::name()?[..8]);
            let hidden = OsString::from(format!("{HIDDEN}{name}"));
            let new = parent.make(&hidden, 0o700)?;
            let lock = new.create(OsStr::new(LOCK), 0o600)?;
            flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
            // The account that looks passes through; every place in it is closed.
            new.set_mode(0o711)?;
            parent.rename(&hidden, &parent, OsStr::new(&name))?;
            let directory = parent.below(Path::new(&name))?;
            Ok(Self { parent, name: name.into(), directory, _lock: lock })
        };
        make().with_context(|| {
            format!("cannot work in {}: --scratch names another place", parent.display())
        })
    }

    /// A directory in it that nobody else can enter.
    pub(crate) fn place(&self, name: &str) -> Result<PathBuf> {
        Ok(self.directory.make(OsStr::new(name), 0o700)?.path().to_owned())
    }

    /// One that `user` (this process's own if `None`) alone can enter.
    pub(crate) fn place_of(&self, name: &str, user: Option<&User>) -> Result<PathBuf> {
        let place = self.directory.make(OsStr::new(name), 0o700)?;
        if let Some(user) = user {
            place.give(user.uid.as_raw(), user.gid.as_raw())?;
        }
        Ok(place.path().to_owned())
    }

    /// Removes a place, with all that is in it.
    pub(crate) fn clear(&self, name: &str) -> Result<()> {
        self.directory.remove(OsStr::new(name))
    }

    /// Bytes that are free.
    pub(crate) fn free(&self) -> Result<u64> {
        let path = self.directory.path();
        let system = fstatvfs(self.directory.as_fd())
            .with_context(|| format!("cannot ask for the free space of {}", path.display()))?;
        Ok(system.f_bavail.saturating_mul(system.f_frsize))
    }

    /// Removes it, with all that is in it.
    pub(crate) fn remove(self) -> Result<()> {
        self.parent.remove(&self.name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What could not be removed, the next verify removes.
        if let Err(error) = self.parent.remove(&self.name) {
            tracing::warn!("{error:#}");
        }
    }
}

/// Makes a directory, and all that is in it, the user's own.
pub(crate) fn give(directory: &Directory, user: Option<&User>) -> Result<()> {
    user.map_or(Ok(()), |user| directory.give(user.uid.as_raw(), user.gid.as_raw()))
}

/// Lets `user`'s group read all that is in `directory`, which nobody else could enter so far.
/// Returns its bytes.
///
/// # Errors
/// If there is anything but directories and regular files in it.
pub(crate) fn lend(directory: &Directory, user: Option<&User>) -> Result<u64> {
    directory.lend(user.map(|user| user.gid.as_raw()))
}

/// Removes what killed verifies left. What cannot be removed is told, and left.
fn sweep(parent: &Directory) -> Result<()> {
    for (name, kind) in parent.entries()? {
        let text = name.to_string_lossy();
        let begun = text.strip_prefix(HIDDEN).is_some_and(|rest| rest.starts_with(PREFIX));
        if kind != FileType::Directory || !(begun || text.starts_with(PREFIX)) {
            continue;
        }
        let path = parent.path().join(&name);
        match abandoned(parent, &name, begun) {
            Ok(Some(_locks)) => match parent.remove(&name) {
                Ok(()) => {
                    tracing::info!(path = %path.display(), "removed what a verify left that was killed")
                }
                Err(error) => tracing::warn!("what a verify left that was killed: {error:#}"),
            },
            Ok(None) => {}
            Err(error) => tracing::warn!("what a verify may have left: {error:#}"),
        }
    }
    Ok(())
}

/// The locks of one that is ours and of no process any more.
fn abandoned(parent: &Directory, name: &OsStr, begun: bool) -> Result<Option<Vec<File>>> {
    let owned = |stat: rustix::fs::Stat| stat.st_uid == rustix::process::geteuid().as_raw();
    if !parent.look(Path::new(name))?.is_some_and(owned) {
        return Ok(None);
    }
    let directory = parent.below(Path::new(name))?;
    let stat = directory.stat()?;
    if !owned(stat) {
        return Ok(None);
    }
    // Earlier versions lock the directory itself.
    let mut locks = vec![File::from(std::os::fd::OwnedFd::from(directory.again()?))];
    match directory.look(Path::new(LOCK))? {
        Some(_) => locks.push(directory.file(Path::new(LOCK))?),
        None if begun => {
            let made = SystemTime::UNIX_EPOCH
                + Duration::from_secs(u64::try_from(stat.st_mtime).unwrap_or(0));
            if made.elapsed().unwrap_or_default() < BEGINNING {
                return Ok(None);
            }
        }
        None => {}
    }
    Ok(locks
        .iter()
        .all(|lock| flock(lock, FlockOperation::NonBlockingLockExclusive).is_ok())
        .then_some(locks))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    #[test]
    fn only_what_a_killed_verify_left_is_removed() {
        let parent = tempfile::tempdir().unwrap();
        let path = |name: &str| parent.path().join(name);
        let at_work = Scratch::new(parent.path()).unwrap();
        for name in [
            "gitlab-backup-verify-killed/database",
            "gitlab-backup-other",
            "elsewhere",
            ".gitlab-backup-verify-begun",
        ] {
            fs::create_dir_all(path(name)).unwrap();
        }
        fs::create_dir_all(path("gitlab-backup-verify-locked")).unwrap();
        fs::write(path("gitlab-backup-verify-locked/lock"), "").unwrap();
        fs::write(path("gitlab-backup-verify-file"), "").unwrap();
        symlink(path("elsewhere"), path("gitlab-backup-verify-link")).unwrap();
        let scratch = Scratch::new(parent.path()).unwrap();
        let stay = [
            "gitlab-backup-other",
            "elsewhere",
            "gitlab-backup-verify-file",
            "gitlab-backup-verify-link",
            ".gitlab-backup-verify-begun",
        ];
        for name in stay {
            assert!(path(name).symlink_metadata().is_ok(), "{name} was removed");
        }
        assert!(!path("gitlab-backup-verify-killed").exists() && at_work.directory.path().exists());
        assert!(!path("gitlab-backup-verify-locked").exists());
        let place = scratch.place("one").unwrap();
        assert_eq!(place.metadata().unwrap().mode() & 0o777, 0o700);
        scratch.remove().unwrap();
        assert!(!place.exists());
    }

    #[test]
    fn a_lock_that_anybody_can_hold_is_not_waited_for() {
        let parent = tempfile::tempdir().unwrap();
        let held = File::open(parent.path()).unwrap();
        flock(&held, FlockOperation::LockExclusive).unwrap();
        Scratch::new(parent.path()).unwrap();
    }

    #[test]
    fn a_directory_in_which_others_rename_is_no_place() {
        let parent = tempfile::tempdir().unwrap();
        fs::set_permissions(parent.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let error = Scratch::new(parent.path()).err().unwrap();
        assert!(format!("{error:#}").contains("others can rename"), "{error:#}");
    }

    #[test]
    fn three_thousand_levels_of_a_killed_verify_are_removed() {
        let parent = tempfile::tempdir().unwrap();
        let left = parent.path().join("gitlab-backup-verify-deep");
        fs::create_dir(&left).unwrap();
        let mut here = Directory::open(&left).unwrap();
        for _ in 0..3000 {
            here = here.make(OsStr::new("d"), 0o700).unwrap();
        }
        Scratch::new(parent.path()).unwrap();
        assert!(!left.exists());
    }

    #[test]
    fn only_files_and_directories_are_lent() {
        let parent = tempfile::tempdir().unwrap();
        fs::create_dir(parent.path().join("a")).unwrap();
        fs::write(parent.path().join("a/file"), "four").unwrap();
        let directory = Directory::open(parent.path()).unwrap();
        assert_eq!(lend(&directory, None).unwrap(), 4);
        symlink("/etc/passwd", parent.path().join("a/link")).unwrap();
        let error = lend(&directory, None).unwrap_err();
        assert!(format!("{error:#}").contains("a/link is a symbolic link"), "{error:#}");
    }
}
