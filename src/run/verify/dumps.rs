//! The dumps of PostgreSQL and Redis, read by the programs that know their formats, which are
//! confined: the dumps are other people's.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::unistd::User;
use rustix::fs::FileType;

use crate::config::Config;
use crate::host::beneath::Directory;
use crate::host::confined::{self, Confinement};
use crate::runs::Part;
use crate::stores::postgresql::versions;
use crate::stores::redis::rdb::{self, Format};
use crate::stores::redis::remote;

use super::patience;

/// The dumps of databases in a part that was laid out at `place`: the directory's name and its
/// path.
pub(super) fn databases(part: &Part, place: &Path) -> Result<Vec<(String, PathBuf)>> {
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let directories =
        entries(part, place)?.into_iter().filter(|(_, kind)| *kind == FileType::Directory);
    Ok(directories.map(|(path, _)| (name(&path), path)).collect())
}

/// The files of Redis instances: each instance's name and its file.
pub(super) fn instances(part: &Part, place: &Path) -> Result<Vec<(String, PathBuf)>> {
    let name = |path: &Path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let files = entries(part, place)?
        .into_iter()
        .filter(|(path, _)| path.extension() == Some(OsStr::new("rdb")));
    Ok(files.map(|(path, _)| (name(&path), path)).collect())
}

/// What lies in the paths of a part.
fn entries(part: &Part, place: &Path) -> Result<Vec<(PathBuf, FileType)>> {
    let mut all = Vec::new();
    let place = Directory::open(place)?;
    for path in &part.paths {
        let directory = place.below(path.strip_prefix("/").unwrap_or(path))?;
        all.extend(
            directory
                .entries()?
                .into_iter()
                .map(|(name, kind)| (directory.path().join(name), kind)),
        );
    }
    all.sort_by(|one, other| one.0.cmp(&other.0));
    Ok(all)
}

/// Has `pg_restore` read a dump's list of contents.
pub(super) fn readable(config: &Config, path: &Path, user: Option<&User>) -> Result<String> {
    let program = versions::path_of("pg_restore", config.postgresql.as_ref());
    let mut command = Confinement::new(user, path).command(&program);
    let list = confined::run(command.arg("--list").arg(path), "pg_restore", patience(0))?;
    let tables = list.lines().filter(|line| line.contains(" TABLE DATA ")).count();
    Ok(format!("pg_restore reads it, {tables} tables with data"))
}

/// How many keys are in an RDB file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Keys {
    /// All of them.
    pub read: u64,
    /// Those that a server may drop as it loads them: they have a time to live.
    pub expires: u64,
}

/// Has `redis-check-rdb`, or Valkey's, read the whole file. None if it does not know the format.
pub(super) fn keys(path: &Path, user: Option<&User>) -> Result<Option<Keys>> {
    let programs = Format::at(path)?.programs("check-rdb");
    let program = remote::installed(&programs)
        .with_context(|| format!("{} is not installed", programs.join(" or ")))?;
    let place = path.parent().context("a file has no directory")?;
    let bytes = path
        .symlink_metadata()
        .with_context(|| format!("cannot look at {}", path.display()))?
        .len();
    let mut command = Confinement::new(user, place).command(&program);
    let said = match confined::run(command.arg(path), "redis-check-rdb", patience(bytes)) {
        Err(error) if rdb::is_unknown(&format!("{error:#}")) => return Ok(None),
        said => said?,
    };
    Keys::parse(&said)
        .with_context(|| format!("redis-check-rdb tells no number of keys of {}", path.display()))
        .map(Some)
}

impl Keys {
    /// From lines such as `[info] 5 keys read` and `[info] 2 expires`.
    fn parse(said: &str) -> Option<Self> {
        let number = |words: &str| {
            said.lines().find_map(|line| {
                line.strip_prefix("[info] ")?.strip_suffix(words)?.trim().parse::<u64>().ok()
            })
        };
        Some(Self { read: number("keys read")?, expires: number("expires").unwrap_or(0) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_redis_check_rdb_says() {
        let said = "[offset 107] \\o/ RDB looks OK! \\o/\n[info] 5 keys read\n[info] 2 expires\n[info] 1 already expired\n";
        assert_eq!(Keys::parse(said), Some(Keys { read: 5, expires: 2 }));
        assert_eq!(Keys::parse("[offset 0] Checking RDB file x\n"), None);
    }
}
