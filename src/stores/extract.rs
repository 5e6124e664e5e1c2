//! From the repository to a directory, in a process of its own: what the engine's library does when
//! a disk is full or a blob is bad may end its process, and must not end ours.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::config::Config;
use crate::host::process;
use crate::open;

/// Lays `paths` of `snapshot` (everything if there are none) out below `target`.
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
    // What was left out is told there.
    std::io::stderr().write_all(&output.stderr).context("cannot tell what was said")
}

/// What the child does.
pub fn extract(config: &Config, snapshot: &str, target: &Path, paths: &[PathBuf]) -> Result<()> {
    // Within a unit the key is kept: deriving it from the password costs half a second each time.
    let engine = if std::env::var_os("GITLAB_BACKUP_RUN_ID").is_some() {
        open::in_run(config)?
    } else {
        open::outside(config)?
    };
    engine.extract(snapshot, target, paths)
}
