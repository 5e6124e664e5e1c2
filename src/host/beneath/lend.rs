//! Gives a group read access to a directory, without changing its owner.

use std::os::fd::AsFd;
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::fs::{FileType, Gid, Mode, fchmod, fchown};

use super::Directory;

/// Lets the group `gid`, if there is one, read everything in `directory`. Returns the size in
/// bytes.
pub(super) fn lend(directory: &Directory, gid: Option<u32>) -> Result<u64> {
    let mut bytes = 0_u64;
    let mut pending = vec![directory.again()?];
    while let Some(directory) = pending.pop() {
        for (name, kind) in directory.entries()? {
            let path = Path::new(&name);
            match kind {
                FileType::Directory => pending.push(directory.below(path)?),
                FileType::RegularFile => {
                    let file = directory.file(path)?;
                    bytes = bytes.saturating_add(file.metadata()?.len());
                    hand(&file, gid, 0o640).with_context(|| {
                        format!("cannot hand {} over", directory.path().join(path).display())
                    })?;
                }
                kind => bail!(
                    "{} is a {}: it is not looked at",
                    directory.path().join(path).display(),
                    word(kind)
                ),
            }
        }
        hand(&directory, gid, 0o750)
            .with_context(|| format!("cannot hand {} over", directory.path().display()))?;
    }
    Ok(bytes)
}

fn hand(file: impl AsFd, gid: Option<u32>, mode: u32) -> Result<()> {
    let Some(gid) = gid else { return Ok(()) };
    // Setting the owner, which does not change, clears set-user-ID bits.
    fchown(&file, Some(rustix::process::geteuid()), Some(Gid::from_raw(gid)))?;
    fchmod(&file, Mode::from_raw_mode(mode))?;
    Ok(())
}

/// The word for a file type.
pub fn word(kind: FileType) -> &'static str {
    match kind {
        FileType::Symlink => "symbolic link",
        FileType::Fifo => "named pipe",
        FileType::Socket => "socket",
        FileType::CharacterDevice | FileType::BlockDevice => "device",
        FileType::Directory => "directory",
        FileType::RegularFile => "file",
        FileType::Unknown => "thing of an unknown kind",
    }
}
