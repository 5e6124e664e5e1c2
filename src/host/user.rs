//! Programs that run as another OS user and do not outlive this process.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use nix::unistd::User;
use rustix::process::Signal;

use crate::accounts;
use crate::host::{confined, remedy};

/// The user to become, and none where this process is not root: then everything runs as who started
/// it.
pub fn to_become(name: &str) -> Result<Option<User>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let user = User::from_name(name).with_context(|| format!("cannot ask for user '{name}'"))?;
    user.with_context(|| format!("there is no user '{name}' on this host")).map(Some)
}

/// Who looks at what comes from others.
pub fn sandbox() -> Result<Option<User>> {
    to_become(accounts::SANDBOX).with_context(|| {
        format!(
            "what comes from others is looked at as an account of its own: '{}' makes it",
            remedy::install()
        )
    })
}

/// `program` as `user`, which ends with this process: for our own programs, in our environment.
/// Must be spawned by the thread that lives as long as the process.
pub fn bound(program: &Path, user: Option<&User>) -> Command {
    confined::bound(program, user, Signal::KILL)
}
