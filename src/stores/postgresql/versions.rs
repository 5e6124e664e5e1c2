//! Finds PostgreSQL's programs and their versions.

use std::path::PathBuf;

use crate::config::Postgresql;
use crate::host::{own, process};

/// The directory below which Debian installs the programs of each version.
pub(crate) const DEBIAN: &str = "/usr/lib/postgresql";

/// Returns the path of one of libpq's programs: in the configured directory, or as [`all_of`] finds
/// it.
pub(crate) fn path_of(program: &str, config: Option<&Postgresql>) -> PathBuf {
    match config.and_then(|config| config.bin_dir.as_ref()) {
        Some(directory) => directory.join(program),
        None => all_of(program).into_iter().next().unwrap_or_else(|| PathBuf::from(program)),
    }
}

/// Finds every installed version of one of libpq's programs: first the one on `PATH`, then those in
/// the directories of distributions, the newest first. Skips Debian's `pg_wrapper`, a Perl script
/// that reads files in its caller's home directory and then runs the newest version.
pub(crate) fn all_of(program: &str) -> Vec<PathBuf> {
    let is_wrapper =
        |path: &PathBuf| path.canonicalize().is_ok_and(|path| path.ends_with("pg_wrapper"));
    let on_path = process::find(program, process::search_path()).filter(|found| !is_wrapper(found));
    let directories =
        versions(DEBIAN, "").into_iter().rev().chain(versions("/usr", "pgsql-").into_iter().rev());
    on_path
        .into_iter()
        .chain(directories.filter_map(|directory| process::find(program, [directory])))
        .collect()
}

/// Finds the program of this version in the directories of distributions.
pub(super) fn of_version(program: &str, major: u32) -> Option<PathBuf> {
    let directories = [format!("{DEBIAN}/{major}/bin"), format!("/usr/pgsql-{major}/bin")];
    process::find(program, directories.map(PathBuf::from))
}

/// Lists the directories `PARENT/PREFIX15/bin` in which distributions install several versions, the
/// newest last.
pub(crate) fn versions(parent: &str, prefix: &str) -> Vec<PathBuf> {
    let entries = own::entries(parent).into_iter().flatten().flatten();
    let version = |name: &str| name.strip_prefix(prefix)?.parse::<u32>().ok();
    let mut found: Vec<_> = entries
        .filter_map(|entry| {
            Some((version(&entry.file_name().to_string_lossy())?, entry.path().join("bin")))
        })
        .collect();
    found.sort();
    found.into_iter().map(|(_, directory)| directory).collect()
}

/// Reads the major version from a program's output of `--version`, or from a `server_version`.
pub(crate) fn major(text: &str) -> Option<u32> {
    text.split_whitespace()
        .find_map(|word| word.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_programs_and_servers_are_read() {
        assert_eq!(major("pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"), Some(15));
        assert_eq!(major("18beta2"), Some(18));
        assert_eq!(major("nonsense"), None);
    }
}
