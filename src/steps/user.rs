//! Programs that run as another OS user and do not outlive this process.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use nix::unistd::User;

/// The user to become, and none where this process is not root: then everything runs as who started it.
pub fn to_become(name: &str) -> Result<Option<User>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let user = User::from_name(name).with_context(|| format!("cannot ask for user '{name}'"))?;
    user.with_context(|| format!("there is no user '{name}' on this host")).map(Some)
}

/// `program` as `user`. The kernel sends it `signal` when this process is gone, however it went: setpriv(1). Must be spawned by the thread
/// that lives as long as the process.
pub fn bound(program: &Path, user: Option<&User>, signal: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", signal, "--no-new-privs"]);
    if let Some(user) = user {
        command.args(["--reuid", &user.uid.to_string(), "--regid", &user.gid.to_string(), "--init-groups"]);
    }
    command.arg("--").arg(program);
    command
}
