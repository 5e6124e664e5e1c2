//! The dumps of a run, extracted from the repository, and who may read them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::accounts;
use crate::config::{Config, Postgresql};
use crate::host::beneath::Directory;
use crate::host::user;
use crate::paths;
use crate::runs::Part;
use crate::runs::record::read_json;
use crate::stores::postgresql::Dumped;
use crate::stores::restoration::{dump_directory, extract_part};

/// As which OS user pg_restore runs: through a socket only the role's name counts.
pub(super) fn loads_as(postgresql: &Postgresql) -> &str {
    if postgresql.by_socket() { accounts::LOADER } else { &postgresql.restore_os_user }
}

/// What the dump recorded beside the archives.
pub(super) fn recorded(part: &Part) -> Result<Dumped> {
    read_json(&dump_directory(part)?.join("postgresql.json"))?
        .context("the dumps have no postgresql.json")
}

/// Extracts `paths` of the part (all of it if there are none), for the account that loads them.
pub(super) fn extract(config: &Config, part: &Part, paths: &[PathBuf]) -> Result<()> {
    extract_part(config, part, paths)?;
    give(config, part)
}

/// Gives the dumps to the account that loads them, or makes that possible.
fn give(config: &Config, part: &Part) -> Result<()> {
    let Some(postgresql) = &config.postgresql else { return Ok(()) };
    let target = Path::new(paths::RESTORE_DUMPS);
    // Through a socket they stay root's: the unit that loads them gives each to the account that
    // reads it. By a host name, the unit runs as that user.
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
