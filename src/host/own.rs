//! Access by path to files and directories that only root can exchange: the state of this program,
//! systemd's, and the repository. Paths are not safe anywhere else: use
//! [`beneath`](super::beneath) in directories of other users.
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

/// Opens a file with mode 0600 for writing, and creates it if necessary.
pub fn closed(path: &Path) -> io::Result<File> {
    File::options().write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// The content of a file.
pub fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    fs::read(path)
}

/// The content of a file as text.
pub fn read_text(path: impl AsRef<Path>) -> io::Result<String> {
    fs::read_to_string(path)
}

/// The time since a file was written; zero if that is in the future.
pub fn age(path: &Path) -> io::Result<Duration> {
    Ok(fs::metadata(path)?.modified()?.elapsed().unwrap_or_default())
}

/// The entries of a directory.
pub fn entries(path: impl AsRef<Path>) -> io::Result<ReadDir> {
    fs::read_dir(path)
}

/// Whether a path leads to a directory, also through links.
pub fn is_directory(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_dir())
}

/// The device number of the file system of a path.
pub fn device(path: &Path) -> io::Result<u64> {
    fs::metadata(path).map(|metadata| metadata.dev())
}

/// Whether a path is on a file system in memory, which is lost with a reboot. False if unknown.
pub fn is_in_memory(path: &Path) -> bool {
    /// linux/magic.h: tmpfs, ramfs.
    const MEMORY: [rustix::fs::FsWord; 2] = [0x0102_1994, 0x8584_58f6];
    rustix::fs::statfs(path).is_ok_and(|system| MEMORY.contains(&system.f_type))
}

/// The target of a link.
pub fn link(path: &Path) -> io::Result<PathBuf> {
    fs::read_link(path)
}

/// The path with all links resolved.
pub fn canonical(path: &Path) -> io::Result<PathBuf> {
    fs::canonicalize(path)
}

/// The metadata of the file that a path leads to.
pub fn metadata(path: impl AsRef<Path>) -> io::Result<Metadata> {
    fs::metadata(path)
}

/// Writes to a file of the kernel's, in /proc or /sys. Any other file is written by
/// [`durable`](super::durable), so that nobody reads a part of it.
pub fn write_to_kernel(path: impl AsRef<Path>, content: impl AsRef<[u8]>) -> Result<()> {
    let path = path.as_ref();
    fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
}

/// Creates a directory and its missing parents.
pub fn make(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))
}

/// Creates a directory and its missing parents, with mode 0700.
pub fn make_closed(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("cannot make {}", path.display()))
}

/// Creates a directory with this mode, regardless of the umask. Fails if it exists.
pub fn make_new(path: &Path, mode: u32) -> Result<()> {
    let make = || {
        fs::create_dir(path).and_then(|()| fs::set_permissions(path, Permissions::from_mode(mode)))
    };
    make().with_context(|| format!("cannot make {}", path.display()))
}

/// Removes a file, if it exists.
pub fn remove(path: impl AsRef<Path>) -> Result<()> {
    removed(path.as_ref(), fs::remove_file(&path))
}

/// Removes an empty directory, if it exists.
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
