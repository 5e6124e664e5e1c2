//! The dumps out of the repository, where PostgreSQL's user and Redis' step find them.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use anyhow::{Context, Result};
use nix::unistd::User;

use crate::config::Config;
use crate::paths;
use crate::steps::extract;
use crate::systemd::notify;

use super::{dump_directory, plan};

/// Lays out what the plan needs of the dumps.
pub fn dumps(config: &Config) -> Result<()> {
    let plan = plan()?;
    let target = Path::new(paths::RESTORE_DUMPS);
    for part in [&plan.postgresql, &plan.redis_part].into_iter().flatten() {
        notify::status(&format!("laying out the dumps of {}", part.name));
        extract::in_child(config, &part.snapshot, target, &[]).with_context(|| format!("part '{}' cannot be laid out", part.name))?;
    }
    let (Some(part), Some(postgresql)) = (&plan.postgresql, &config.postgresql) else { return Ok(()) };
    let user = User::from_name(&postgresql.os_user).ok().flatten();
    let user = user.with_context(|| format!("there is no user '{}': correct [postgresql] os-user", postgresql.os_user))?;
    let directory = dump_directory(part)?;
    // Owned by a number of the host that was backed up, and above it are its directories.
    hand_over(&directory, user.uid.as_raw(), user.gid.as_raw())?;
    for above in directory.ancestors().skip(1).take_while(|path| path.starts_with(target)) {
        fs::set_permissions(above, fs::Permissions::from_mode(0o711)).with_context(|| format!("cannot open {}", above.display()))?;
    }
    Ok(())
}

fn hand_over(path: &Path, uid: u32, gid: u32) -> Result<()> {
    chown(path, Some(uid), Some(gid)).with_context(|| format!("cannot hand {} over", path.display()))?;
    if path.is_dir() {
        for entry in fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))? {
            hand_over(&entry?.path(), uid, gid)?;
        }
    }
    Ok(())
}
