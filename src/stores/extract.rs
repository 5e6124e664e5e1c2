//! Extracts files from the repository in a child process: the engine's library may abort its
//! process when a disk is full or a blob is damaged.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::config::Config;
use crate::host::process;
use crate::open;
use crate::paths::RootDirectory;

/// Extracts `paths` of `snapshot` (everything if there are none) below `target`, in a child
/// process.
pub fn in_child(config: &Config, snapshot: &str, target: &Path, paths: &[PathBuf]) -> Result<()> {
    let program = std::env::current_exe().context("cannot find this program's own path")?;
    let mut command = Command::new(program);
    command
        .arg("--config")
        .arg(&config.source)
        .args(["helper", "extract", snapshot])
        .arg(target)
        .args(paths);
    let output = command.stdin(Stdio::null()).output().context("cannot run this program again")?;
    ensure!(output.status.success(), "{}", process::tail(&output.stderr));
    // The child's warnings name the files that it left out.
    std::io::stderr()
        .write_all(&output.stderr)
        .context("cannot pass on the output of the extracting process")
}

/// Extracts in this process: this is what the child of [`in_child`] runs.
pub fn extract(
    config: &Config,
    root: &RootDirectory,
    snapshot: &str,
    target: &Path,
    paths: &[PathBuf],
) -> Result<()> {
    // The units of a run share a key: deriving it from the password takes half a second each time.
    let engine = if std::env::var_os("GITLAB_BACKUP_RUN_ID").is_some() {
        open::in_run(config, root)?
    } else {
        open::outside(config)?
    };
    engine.extract(snapshot, target, paths)
}
