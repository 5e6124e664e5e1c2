//! Files and directories that nobody but root can exchange: our own state, systemd's, the
//! repository. By path, which is safe only there; what lies in directories of others is for
//! [`beneath`](super::beneath).
#![expect(
    clippy::disallowed_methods,
    reason = "the one place beside `beneath` where a path may lead to a file"
)]

use std::fs::{self, DirBuilder, File, Metadata, Permissions, ReadDir};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

/// Opens a file for reading.
pub fn open(path: &Path) -> io::Result<File> {
    File::open(path)
}

/// Creates a file for writing, or empties the existing one. For a file that nobody reads before it
/// is whole; any other is written by [`durable`](super::durable).
pub fn create(path: &Path) -> io::Result<File> {
    File::create(path)
}

/// Opens a file of ours for writing that nobody else may open, and makes it if it is not there.
pub fn closed(path: &Path) -> io::Result<File> {
    File::options().write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// The content of a file.
pub fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    fs::read(path)
}

/// The same as text.
pub fn read_text(path: impl AsRef<Path>) -> io::Result<String> {
    fs::read_to_string(path)
}

/// How long ago a file was written; no time, by a clock that was set back.
pub fn age(path: &Path) -> io::Result<Duration> {
    Ok(fs::metadata(path)?.modified()?.elapsed().unwrap_or_default())
}

/// What is in a directory.
pub fn entries(path: impl AsRef<Path>) -> io::Result<ReadDir> {
    fs::read_dir(path)
}

/// Whether a path leads to a directory, through whatever links.
pub fn is_directory(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_dir())
}

/// The number of the file system that a path leads to.
pub fn device(path: &Path) -> io::Result<u64> {
    fs::metadata(path).map(|metadata| metadata.dev())
}

/// Whether what is at a path is in memory only, and gone after a reboot. False where that cannot be
/// told.
pub fn is_in_memory(path: &Path) -> bool {
    /// linux/magic.h: tmpfs, ramfs.
    const MEMORY: [rustix::fs::FsWord; 2] = [0x0102_1994, 0x8584_58f6];
    rustix::fs::statfs(path).is_ok_and(|system| MEMORY.contains(&system.f_type))
}

/// Where a link leads to.
pub fn link(path: &Path) -> io::Result<PathBuf> {
    fs::read_link(path)
}

/// A path without links.
pub fn canonical(path: &Path) -> io::Result<PathBuf> {
    fs::canonicalize(path)
}

/// What is behind the path.
pub fn metadata(path: impl AsRef<Path>) -> io::Result<Metadata> {
    fs::metadata(path)
}

/// Writes to a file of the kernel's, in /proc or /sys. Any other file is written by
/// [`durable`](super::durable), so that nobody reads a part of it.
pub fn write_to_kernel(path: impl AsRef<Path>, content: impl AsRef<[u8]>) -> Result<()> {
    let path = path.as_ref();
    fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
}

/// Makes a directory and those above it, where they are missing.
pub fn make(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))
}

/// The same, each closed to others.
pub fn make_closed(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("cannot make {}", path.display()))
}

/// Makes a directory of this mode, whatever the umask. That it is there is an error.
pub fn make_new(path: &Path, mode: u32) -> Result<()> {
    let make = || {
        fs::create_dir(path).and_then(|()| fs::set_permissions(path, Permissions::from_mode(mode)))
    };
    make().with_context(|| format!("cannot make {}", path.display()))
}

/// Removes a file; that it is not there is no failure.
pub fn remove(path: impl AsRef<Path>) -> Result<()> {
    removed(path.as_ref(), fs::remove_file(&path))
}

/// Removes an empty directory; that it is not there is no failure.
pub fn remove_directory(path: impl AsRef<Path>) -> Result<()> {
    removed(path.as_ref(), fs::remove_dir(&path))
}

fn removed(path: &Path, result: io::Result<()>) -> Result<()> {
    match result {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
