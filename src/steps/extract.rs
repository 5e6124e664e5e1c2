//! From the repository to a directory, in a process of its own: what the engine's library does when a disk is full or a blob is bad may end
//! its process, and must not end ours.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::config::Config;

use super::{open, process};

/// Lays `path` of `snapshot` (everything if `None`) out below `target`.
pub fn in_child(config: &Config, snapshot: &str, target: &Path, path: Option<&Path>) -> Result<()> {
    let program = std::env::current_exe().context("cannot find this program's own path")?;
    let mut command = Command::new(program);
    command.arg("--config").arg(&config.source).args(["helper", "extract", snapshot]).arg(target).args(path);
    let output = command.stdin(Stdio::null()).output().context("cannot run this program again")?;
    ensure!(output.status.success(), "{}", process::tail(&output.stderr));
    Ok(())
}

/// What the child does.
pub fn extract(config: &Config, snapshot: &str, target: &Path, path: Option<&Path>) -> Result<()> {
    open::outside(config)?.extract(snapshot, target, path)
}
