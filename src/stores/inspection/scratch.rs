//! The scratch directory of a verify: dumps are extracted and throwaway servers run in it. It is
//! removed at the end, or by the next verify if this one is killed.
//!
//! Other users can create files beside it, and can lock every file that they can open. So this
//! module never waits for a lock, and the lock that shows that a verify is still running is on a
//! file that no other user can open.

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
/// What the name begins with until the directory is locked.
const HIDDEN: &str = ".";
const LOCK: &str = "lock";
/// A directory that is older than this and still not locked belongs to a killed verify.
const LOCKED_WITHIN: Duration = Duration::from_secs(3600);

/// A scratch directory. It is locked while its process lives: a directory without a lock was left
/// by a killed verify.
pub(crate) struct Scratch {
    parent: Directory,
    name: OsString,
    directory: Directory,
    _lock: File,
}

impl Scratch {
    /// Creates a scratch directory in `parent`, and removes those that killed verifies left there.
    pub(crate) fn new(parent: &Path) -> Result<Self> {
        let create = || -> Result<Self> {
            let parent = Directory::open(parent)?;
            let stat = parent.stat()?;
            let alone = stat.st_mode & 0o022 == 0 || stat.st_mode & 0o1000 != 0;
            ensure!(alone, "others can rename files in it: set the sticky bit with 'chmod +t'");
            sweep(&parent)?;
            let name = format!("{PREFIX}{}", &random::name()?[..8]);
            let hidden = OsString::from(format!("{HIDDEN}{name}"));
            let new = parent.make(&hidden, 0o700)?;
            let lock = new.create(OsStr::new(LOCK), 0o600)?;
            flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
            // The account of the checking programs must get through to its own directory in it.
            new.set_mode(0o711)?;
            parent.rename(&hidden, &parent, OsStr::new(&name))?;
            let directory = parent.below(Path::new(&name))?;
            Ok(Self { parent, name: name.into(), directory, _lock: lock })
        };
        create().with_context(|| {
            format!(
                "cannot use {} as the scratch directory: choose another one with --scratch",
                parent.display()
            )
        })
    }

    /// Creates a directory in it that no other user can enter.
    pub(crate) fn create_place(&self, name: &str) -> Result<PathBuf> {
        Ok(self.directory.make(OsStr::new(name), 0o700)?.path().to_owned())
    }

    /// Creates a directory in it that only `user` (if `None`: the user of this process) can enter.
    pub(crate) fn create_place_for(&self, name: &str, user: Option<&User>) -> Result<PathBuf> {
        let place = self.directory.make(OsStr::new(name), 0o700)?;
        if let Some(user) = user {
            place.give(user.uid.as_raw(), user.gid.as_raw())?;
        }
        Ok(place.path().to_owned())
    }

    /// Removes a directory in it, with its contents.
    pub(crate) fn remove_place(&self, name: &str) -> Result<()> {
        self.directory.remove(OsStr::new(name))
    }

    /// The free bytes of its file system.
    pub(crate) fn free(&self) -> Result<u64> {
        let path = self.directory.path();
        let system = fstatvfs(self.directory.as_fd())
            .with_context(|| format!("cannot read the free space of {}", path.display()))?;
        Ok(system.f_bavail.saturating_mul(system.f_frsize))
    }

    /// Removes the scratch directory with its contents.
    pub(crate) fn remove(self) -> Result<()> {
        self.parent.remove(&self.name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // The next verify tries again.
        if let Err(error) = self.parent.remove(&self.name) {
            tracing::warn!("{error:#}");
        }
    }
}

/// Changes the owner of a directory and its contents to `user`, if there is one.
pub(crate) fn give(directory: &Directory, user: Option<&User>) -> Result<()> {
    user.map_or(Ok(()), |user| directory.give(user.uid.as_raw(), user.gid.as_raw()))
}

/// Lets `user`'s group read `directory` and its contents, which no other user could enter so far.
/// Returns the size of the contents in bytes.
///
/// # Errors
/// If `directory` contains anything except directories and regular files.
pub(crate) fn lend(directory: &Directory, user: Option<&User>) -> Result<u64> {
    directory.lend(user.map(|user| user.gid.as_raw()))
}

/// Removes the scratch directories that killed verifies left. Logs a warning for one that cannot be
/// removed.
fn sweep(parent: &Directory) -> Result<()> {
    for (name, kind) in parent.entries()? {
        let text = name.to_string_lossy();
        let is_hidden = text.strip_prefix(HIDDEN).is_some_and(|rest| rest.starts_with(PREFIX));
        if kind != FileType::Directory || !(is_hidden || text.starts_with(PREFIX)) {
            continue;
        }
        let path = parent.path().join(&name);
        match lock_abandoned(parent, &name, is_hidden) {
            Ok(Some(_locks)) => match parent.remove(&name) {
                Ok(()) => {
                    tracing::info!(
                        path = %path.display(),
                        "removed the scratch directory of a killed verify"
                    )
                }
                Err(error) => {
                    tracing::warn!(
                        "cannot remove the scratch directory of a killed verify: {error:#}"
                    )
                }
            },
            Ok(None) => {}
            Err(error) => {
                tracing::warn!("cannot look for scratch directories of killed verifies: {error:#}")
            }
        }
    }
    Ok(())
}

/// Locks the scratch directory of a killed verify, and returns the locks. Returns `None` if it
/// belongs to another user or to a verify that is still running.
fn lock_abandoned(parent: &Directory, name: &OsStr, is_hidden: bool) -> Result<Option<Vec<File>>> {
    let is_ours = |stat: rustix::fs::Stat| stat.st_uid == rustix::process::geteuid().as_raw();
    if !parent.look(Path::new(name))?.is_some_and(is_ours) {
        return Ok(None);
    }
    let directory = parent.below(Path::new(name))?;
    let stat = directory.stat()?;
    if !is_ours(stat) {
        return Ok(None);
    }
    // Earlier versions lock the directory itself.
    let mut locks = vec![File::from(std::os::fd::OwnedFd::from(directory.again()?))];
    match directory.look(Path::new(LOCK))? {
        Some(_) => locks.push(directory.file(Path::new(LOCK))?),
        // Another verify may be between creating its directory and locking it.
        None if is_hidden => {
            let modified = SystemTime::UNIX_EPOCH
                + Duration::from_secs(u64::try_from(stat.st_mtime).unwrap_or(0));
            if modified.elapsed().unwrap_or_default() < LOCKED_WITHIN {
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
    fn only_scratch_directories_of_killed_verifies_are_removed() {
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
        let place = scratch.create_place("one").unwrap();
        assert_eq!(place.metadata().unwrap().mode() & 0o777, 0o700);
        scratch.remove().unwrap();
        assert!(!place.exists());
    }

    #[test]
    fn locks_of_other_users_do_not_block() {
        let parent = tempfile::tempdir().unwrap();
        let held = File::open(parent.path()).unwrap();
        flock(&held, FlockOperation::LockExclusive).unwrap();
        Scratch::new(parent.path()).unwrap();
    }

    #[test]
    fn a_directory_in_which_others_can_rename_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        fs::set_permissions(parent.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let error = Scratch::new(parent.path()).err().unwrap();
        assert!(format!("{error:#}").contains("others can rename"), "{error:#}");
    }

    #[test]
    fn a_leftover_of_any_depth_is_removed() {
        let parent = tempfile::tempdir().unwrap();
        let left = parent.path().join("gitlab-backup-verify-deep");
        fs::create_dir(&left).unwrap();
        let mut here = Directory::open(&left).unwrap();
        // More levels than the usual limit of open files, 1,024.
        for _ in 0..1100 {
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
