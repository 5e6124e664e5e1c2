//! Extracts the dumps of a run from the repository, and gives access to them.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::accounts;
use crate::config::{Config, Postgresql};
use crate::host::beneath::Directory;
use crate::host::user;
use crate::paths::{self, RootDirectory};
use crate::runs::Part;
use crate::runs::record::read_json;
use crate::stores::postgresql::Dumped;
use crate::stores::restoration::{dump_directory, extract_part};

/// The OS user that runs pg_restore. Through a socket, the server may compare it with the role.
pub(super) fn loading_user(postgresql: &Postgresql) -> &str {
    if postgresql.by_socket() { accounts::LOADER } else { &postgresql.restore_os_user }
}

/// Reads `postgresql.json` of the extracted dumps.
pub(super) fn read_record(root: &RootDirectory, part: &Part) -> Result<Dumped> {
    read_json(&dump_directory(root, part)?.join("postgresql.json"))?
        .context("the dumps have no postgresql.json")
}

/// Extracts `paths` of the part (the whole part if there are none), and gives access to the account
/// that loads them.
pub(super) fn extract(
    config: &Config,
    root: &RootDirectory,
    part: &Part,
    paths: &[PathBuf],
) -> Result<()> {
    extract_part(config, root, part, paths)?;
    give_access(config, root, part)
}

/// Gives the dumps to the account that loads them.
pub(super) fn give_access(config: &Config, root: &RootDirectory, part: &Part) -> Result<()> {
    let Some(postgresql) = &config.postgresql else { return Ok(()) };
    let target = &root.at(paths::RESTORE_DUMPS);
    // Through a socket, the unit that loads the dumps runs as root, and lets the loading account
    // read each dump. Through a host name, the unit runs as `restore_os_user`.
    let (uid, gid) = match postgresql.by_socket() {
        true => (0, 0),
        false => {
            let user = user::to_become(&postgresql.restore_os_user)
                .context("correct [postgresql] os-user")?;
            user.map_or((0, 0), |user| (user.uid.as_raw(), user.gid.as_raw()))
        }
    };
    let directory = dump_directory(root, part)?;
    let inside = directory
        .strip_prefix(target)
        .with_context(|| format!("the dumps are not in {}", target.display()))?;
    let dumps = Directory::open(target)?;
    // The dumps have the owner's UID of the host that was backed up. The directories above them, up
    // to `target`, were restored from there too.
    dumps.below(inside)?.give(uid, gid)?;
    inside
        .ancestors()
        .skip(usize::from(uid != 0))
        .try_for_each(|above| dumps.below(above)?.set_mode(0o711))
}
