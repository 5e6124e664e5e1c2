//! Runs programs as another OS user, which end with this process.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use nix::unistd::User;
use rustix::process::Signal;

use crate::accounts;
use crate::host::{confined, remedy};

/// The user `name`; none if this process is not root and cannot change its user.
pub fn to_become(name: &str) -> Result<Option<User>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let user = User::from_name(name).with_context(|| format!("cannot ask for user '{name}'"))?;
    user.with_context(|| format!("there is no user '{name}' on this host")).map(Some)
}

/// The account for programs that read data of other users.
pub fn sandbox() -> Result<Option<User>> {
    to_become(accounts::SANDBOX).with_context(|| {
        format!("the account for untrusted data is missing: '{}' creates it", remedy::install())
    })
}

/// A command that runs `program` as `user`, with the environment of this process, and ends with
/// this process. Must be spawned by the main thread, because the kernel binds it to the thread.
pub fn bound(program: &Path, user: Option<&User>) -> Command {
    confined::bound(program, user, Signal::KILL)
}
