//! The dumps of PostgreSQL and Redis, read by the programs that know their formats.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::config::Config;
use crate::process;
use crate::runs::Part;
use crate::steps::postgresql::client;
use crate::steps::redis::remote;

/// The dumps of databases in a part that was laid out at `place`: the directory's name and its path.
pub(super) fn databases(part: &Part, place: &Path) -> Result<Vec<(String, PathBuf)>> {
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(entries(part, place)?.into_iter().filter(|path| path.is_dir()).map(|path| (name(&path), path)).collect())
}

/// The files of Redis instances: each instance's name and its file.
pub(super) fn instances(part: &Part, place: &Path) -> Result<Vec<(String, PathBuf)>> {
    let name = |path: &Path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let files = entries(part, place)?.into_iter().filter(|path| path.extension() == Some(OsStr::new("rdb")));
    Ok(files.map(|path| (name(&path), path)).collect())
}

/// What lies in the paths of a part.
fn entries(part: &Part, place: &Path) -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for path in &part.paths {
        let path = place.join(path.strip_prefix("/").unwrap_or(path));
        for entry in fs::read_dir(&path).with_context(|| format!("cannot read {}", path.display()))? {
            all.push(entry?.path());
        }
    }
    all.sort();
    Ok(all)
}

/// Has `pg_restore` read a dump's list of contents.
pub(super) fn readable(config: &Config, path: &Path) -> Result<String> {
    let program = client::path_of("pg_restore", config.postgresql.as_ref());
    let list = process::run(Command::new(program).arg("--list").arg(path))?;
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

/// Has `redis-check-rdb` read the whole file.
pub(super) fn keys(path: &Path) -> Result<Keys> {
    let program = remote::installed(&["redis-check-rdb", "valkey-check-rdb"]).context("redis-check-rdb is not installed")?;
    let said = process::run(Command::new(program).arg(path))?;
    Keys::parse(&said).with_context(|| format!("redis-check-rdb tells no number of keys of {}", path.display()))
}

impl Keys {
    /// From lines such as `[info] 5 keys read` and `[info] 2 expires`.
    fn parse(said: &str) -> Option<Self> {
        let number =
            |words: &str| said.lines().find_map(|line| line.strip_prefix("[info] ")?.strip_suffix(words)?.trim().parse::<u64>().ok());
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
