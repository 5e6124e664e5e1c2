//! What is mounted where.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::process;

/// A mounted file system.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Mount {
    /// Where.
    pub target: PathBuf,
    /// The device, or what its kind has in place of one.
    pub source: String,
    /// Its kind, as mount(8) takes it.
    #[serde(rename = "fstype")]
    pub kind: String,
    /// Which of its directories.
    #[serde(rename = "fsroot")]
    pub root: PathBuf,
}

#[derive(Deserialize)]
struct List {
    filesystems: Vec<Mount>,
}

/// Everything that this process sees mounted, in the order in which it was. Fails without findmnt(8).
pub fn mounts() -> Result<Vec<Mount>> {
    let mut command = Command::new("findmnt");
    command.args(["--kernel", "--json", "--list", "--nofsroot", "--output", "TARGET,SOURCE,FSTYPE,FSROOT"]);
    let list: List = serde_json::from_str(&process::run(&mut command)?).context("findmnt said what cannot be understood")?;
    Ok(list.filesystems)
}

/// Unmounts what is mounted at `path`, which then goes too; that nothing is there is no failure.
pub(super) fn unmount(path: &Path) -> Result<()> {
    if mounts()?.iter().any(|mount| mount.target == path) {
        process::run(Command::new("umount").arg(path))?;
    }
    match std::fs::remove_dir(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
