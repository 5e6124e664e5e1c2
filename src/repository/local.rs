//! Whether a directory of this host holds a repository, judged by the names in it. All engines
//! share this.

use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use crate::host::own;

/// The directories that every repository of this format has besides its file `config`.
const DIRECTORIES: [&str; 4] = ["data", "index", "keys", "snapshots"];

/// Whether there is a repository in `directory`.
///
/// # Errors
/// If that cannot be determined, or if the repository has lost its file `config`: it must not be
/// treated as missing.
pub(super) fn exists(directory: &Path) -> Result<bool> {
    let config = directory.join("config");
    match own::metadata(&config) {
        Ok(found) => {
            ensure!(
                found.len() > 0,
                "{} is damaged: its file 'config' is empty; bring it back from a copy of the \
                 repository",
                directory.display()
            );
            return Ok(true);
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => {
            return Err(error).with_context(|| format!("cannot look at {}", config.display()));
        }
    }
    let left: Vec<&str> =
        DIRECTORIES.into_iter().filter(|name| own::is_directory(&directory.join(name))).collect();
    if !left.is_empty() {
        bail!(
            "{} is a damaged repository: its file 'config' is gone, and {} there: remove nothing, \
             and bring the file back from a copy of the repository",
            directory.display(),
            if left.len() == 1 {
                format!("'{}' is", left[0])
            } else {
                format!("'{}' are", left.join("', '"))
            }
        );
    }
    Ok(false)
}

/// Fails if `directory`, in which a repository will be created, has other files.
pub(super) fn ensure_vacant(directory: &Path) -> Result<()> {
    let occupied = match own::entries(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => false,
        // A new file system has lost+found.
        entries => entries
            .with_context(|| format!("cannot read {}", directory.display()))?
            .any(|entry| !entry.is_ok_and(|entry| entry.file_name() == "lost+found")),
    };
    ensure!(
        !occupied,
        "{} holds no repository, but other files: empty it or name another [repository] location",
        directory.display()
    );
    Ok(())
}
