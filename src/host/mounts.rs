//! What is mounted where, as the kernel tells this process: proc(5), `/proc/self/mountinfo`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use procfs::FromRead;
use procfs::process::MountInfos;

/// A mounted file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Where.
    pub target: PathBuf,
    /// Its kind, as mount(8) takes it; of a user's own (FUSE) no more than that.
    pub kind: String,
    /// The device, or what its kind has in place of one; empty for a user's own.
    pub source: String,
    /// Which of its directories.
    pub root: PathBuf,
}

/// All of them, in the order in which they were mounted. `file` is mountinfo, of this process or of a tree that is looked at.
///
/// # Errors
/// If it cannot be read or understood.
pub fn read(file: &Path) -> Result<Vec<Mount>> {
    let all = MountInfos::from_file(file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(all
        .0
        .into_iter()
        .map(|mount| {
            // Whoever mounts a FUSE names its kind and its source as he likes.
            let fuse = mount.fs_type.starts_with("fuse");
            Mount {
                target: mount.mount_point,
                kind: if fuse { "fuse".to_owned() } else { mount.fs_type },
                source: if fuse { String::new() } else { mount.mount_source.unwrap_or_default() },
                root: mount.root.into(),
            }
        })
        .collect())
}

/// Those that this process sees.
///
/// # Errors
/// As [`read`].
pub fn seen() -> Result<Vec<Mount>> {
    read(Path::new(OWN))
}

/// This process's own.
pub const OWN: &str = "/proc/self/mountinfo";

impl Mount {
    /// Whether it could make snapshots of itself.
    pub fn is_volume(&self) -> bool {
        ["btrfs", "zfs"].contains(&self.kind.as_str()) || self.is_mapped()
    }

    /// Whether its device may be a logical volume: `/dev/mapper/GROUP-VOLUME`, `/dev/GROUP/VOLUME`.
    pub fn is_mapped(&self) -> bool {
        self.source.strip_prefix("/dev/").is_some_and(|name| name.contains('/') || name.starts_with("dm-"))
    }
}

/// The mount that `path` is below.
pub fn of<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    // Of two on the same directory, the later one is seen.
    mounts.iter().rev().filter(|mount| path.starts_with(&mount.target)).max_by_key(|mount| mount.target.components().count())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_a_user_calls_his_own_file_system_is_not_believed() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let lines = "30 20 253:0 / /home rw - ext4 /dev/mapper/vg0-lv0 rw\n\
            31 30 0:40 / /home/git/repositories rw,nosuid - fuse./home/git/evil /dev/vg0/lv0 rw,user_id=1000\n\
            32 30 0:41 / /home/git/other rw,nosuid - fuseblk.zfs /dev/mapper/vg0-lv0 rw,user_id=1000\n";
        std::fs::write(file.path(), lines).unwrap();
        let seen = read(file.path()).unwrap();
        assert!(seen[0].is_volume() && seen[0].source == "/dev/mapper/vg0-lv0");
        for own in &seen[1..] {
            assert!(own.kind == "fuse" && own.source.is_empty() && !own.is_volume(), "{own:?}");
        }
    }
}
