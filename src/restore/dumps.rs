//! The dumps out of the repository, where PostgreSQL's user and Redis' step find them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::config::Config;
use crate::host::beneath::Directory;
use crate::host::user;
use crate::paths;
use crate::run::extract;
use crate::runs::Part;
use crate::systemd::notify;

use super::{dump_directory, plan};

/// Lays out what the plan needs of the dumps.
pub fn dumps(config: &Config) -> Result<()> {
    let plan = plan()?;
    for part in [&plan.postgresql, &plan.redis_part].into_iter().flatten() {
        notify::status(&format!("laying out the dumps of {}", part.name));
        lay(config, part, &[])?;
    }
    plan.postgresql.as_ref().map_or(Ok(()), |part| give(config, part))
}

/// Lays `paths` of a part out; all of it if there are none.
pub(super) fn lay(config: &Config, part: &Part, paths: &[PathBuf]) -> Result<()> {
    extract::in_child(config, &part.snapshot, Path::new(paths::RESTORE_DUMPS), paths)
        .with_context(|| format!("part '{}' cannot be laid out", part.name))
}

/// Gives the dumps of PostgreSQL's part to whom they are loaded by, or makes it possible.
pub(super) fn give(config: &Config, part: &Part) -> Result<()> {
    let Some(postgresql) = &config.postgresql else { return Ok(()) };
    let target = Path::new(paths::RESTORE_DUMPS);
    // By a socket, root's own: the unit that loads them gives each to whom it has read it. By a
    // host, the unit is the user.
    let (uid, gid) = match postgresql.by_socket() {
        true => (0, 0),
        false => {
            let user = user::to_become(&postgresql.restore_os_user)
                .context("correct [postgresql] os-user")?;
            user.map_or((0, 0), |user| (user.uid.as_raw(), user.gid.as_raw()))
        }
    };
    let directory = dump_directory(part)?;
    let inside = directory.strip_prefix(target).context("the dumps are elsewhere")?;
    let dumps = Directory::open(target)?;
    // Owned by a number of the host that was backed up, and above it are its directories.
    dumps.below(inside)?.give(uid, gid)?;
    inside
        .ancestors()
        .skip(usize::from(uid != 0))
        .try_for_each(|above| dumps.below(above)?.set_mode(0o711))
}
