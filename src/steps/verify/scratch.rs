//! Where a verify lays out and starts what it looks at: a directory that is gone afterwards, at the latest with the next verify.

use std::fs::{self, DirBuilder, File, Permissions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::unistd::User;
use rustix::fs::{FlockOperation, flock, statvfs};
use tempfile::TempDir;

const PREFIX: &str = "gitlab-backup-verify-";

/// The directory. Locked while its process lives, so that what is left of a killed one can be told from one at work.
pub(super) struct Scratch {
    directory: TempDir,
    _lock: File,
}

impl Scratch {
    /// Makes one below `parent`, and removes there what killed verifies left.
    pub(super) fn new(parent: &Path) -> Result<Self> {
        // One at a time: between being made and being locked, a directory looks like one that was left.
        let _turn = locked(parent, FlockOperation::LockExclusive)
            .with_context(|| format!("cannot work in {}: --scratch names another place", parent.display()))?;
        for left in left(parent)? {
            match fs::remove_dir_all(&left) {
                Ok(()) => tracing::info!(path = %left.display(), "removed what a verify left that was killed"),
                Err(error) => tracing::warn!("cannot remove {}, which a verify left that was killed: {error}", left.display()),
            }
        }
        let make = || -> Result<Self> {
            let directory = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent)?;
            // Servers pass through as users of their own; every place in it is closed.
            fs::set_permissions(directory.path(), Permissions::from_mode(0o711))?;
            let lock = locked(directory.path(), FlockOperation::NonBlockingLockExclusive)?;
            Ok(Self { directory, _lock: lock })
        };
        make().with_context(|| format!("cannot make a directory in {}: --scratch names another place", parent.display()))
    }

    /// A directory in it that nobody else can enter.
    pub(super) fn place(&self, name: &str) -> Result<PathBuf> {
        let path = self.directory.path().join(name);
        DirBuilder::new().mode(0o700).create(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(path)
    }

    /// One that `user` (this process's own if `None`) alone can enter.
    pub(super) fn place_of(&self, name: &str, user: Option<&User>) -> Result<PathBuf> {
        let path = self.place(name)?;
        give(&path, user)?;
        Ok(path)
    }

    /// Bytes that are free.
    pub(super) fn free(&self) -> Result<u64> {
        let path = self.directory.path();
        let system = statvfs(path).with_context(|| format!("cannot ask for the free space of {}", path.display()))?;
        Ok(system.f_bavail.saturating_mul(system.f_frsize))
    }

    /// Removes it, with all that is in it.
    pub(super) fn remove(self) -> Result<()> {
        let path = self.directory.path().to_owned();
        self.directory.close().with_context(|| format!("cannot remove {}", path.display()))
    }
}

/// Makes `path` the user's own.
pub(super) fn give(path: &Path, user: Option<&User>) -> Result<()> {
    let Some(user) = user else { return Ok(()) };
    chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw()))
        .with_context(|| format!("cannot give {} to {}", path.display(), user.name))
}

/// What is named and owned as ours and not locked by anybody.
fn left(parent: &Path) -> Result<Vec<PathBuf>> {
    let mut left = Vec::new();
    for entry in fs::read_dir(parent).with_context(|| format!("cannot read {}", parent.display()))? {
        let entry = entry?;
        // Not followed: a link is nothing of ours.
        let Ok(metadata) = entry.metadata() else { continue };
        let ours = entry.file_name().to_string_lossy().starts_with(PREFIX)
            && metadata.is_dir()
            && metadata.uid() == rustix::process::geteuid().as_raw();
        if ours && locked(&entry.path(), FlockOperation::NonBlockingLockExclusive).is_ok() {
            left.push(entry.path());
        }
    }
    Ok(left)
}

/// A lock on a directory, which ends with what is returned.
fn locked(path: &Path, how: FlockOperation) -> Result<File> {
    let directory = File::open(path)?;
    flock(&directory, how)?;
    Ok(directory)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_what_a_killed_verify_left_is_removed() {
        let parent = tempfile::tempdir().unwrap();
        let path = |name: &str| parent.path().join(name);
        let at_work = Scratch::new(parent.path()).unwrap();
        for name in ["gitlab-backup-verify-killed/database", "gitlab-backup-other", "elsewhere"] {
            fs::create_dir_all(path(name)).unwrap();
        }
        fs::write(path("gitlab-backup-verify-file"), "").unwrap();
        symlink(path("elsewhere"), path("gitlab-backup-verify-link")).unwrap();
        let scratch = Scratch::new(parent.path()).unwrap();
        for name in ["gitlab-backup-other", "elsewhere", "gitlab-backup-verify-file", "gitlab-backup-verify-link"] {
            assert!(path(name).symlink_metadata().is_ok(), "{name} was removed");
        }
        assert!(!path("gitlab-backup-verify-killed").exists() && at_work.directory.path().exists());
        let place = scratch.place("one").unwrap();
        assert_eq!(place.metadata().unwrap().mode() & 0o777, 0o700);
        scratch.remove().unwrap();
        assert!(!place.exists());
    }
}
