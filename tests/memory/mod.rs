//! Directories for tests that need no real file system.

use std::path::Path;

use tempfile::TempDir;

/// A temporary directory, if possible in memory, because the program syncs files.
pub fn directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    match memory.is_dir() {
        true => tempfile::tempdir_in(memory).unwrap(),
        false => tempfile::tempdir().unwrap(),
    }
}
