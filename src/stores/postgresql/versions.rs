//! Where PostgreSQL's programs are, and of which version.

use std::path::PathBuf;

use crate::config::Postgresql;
use crate::host::{own, process};

/// Where Debian keeps the programs of each version.
pub(crate) const DEBIAN: &str = "/usr/lib/postgresql";

/// Where one of libpq's programs is: as configured, or on `PATH`.
pub(crate) fn path_of(program: &str, config: Option<&Postgresql>) -> PathBuf {
    match config.and_then(|config| config.bin_dir.as_ref()) {
        Some(directory) => directory.join(program),
        None => all_of(program).into_iter().next().unwrap_or_else(|| PathBuf::from(program)),
    }
}

/// Every version of one of libpq's programs that is here: first what is on `PATH`, then what
/// distributions keep, the newest first. What Debian's `pg_wrapper`, a Perl script, would run is
/// the newest: it looks into its caller's home directory, which is none of ours.
pub(crate) fn all_of(program: &str) -> Vec<PathBuf> {
    let is_wrapper =
        |path: &PathBuf| path.canonicalize().is_ok_and(|path| path.ends_with("pg_wrapper"));
    let on_path = process::find(program, process::search_path()).filter(|found| !is_wrapper(found));
    let kept =
        versions(DEBIAN, "").into_iter().rev().chain(versions("/usr", "pgsql-").into_iter().rev());
    on_path
        .into_iter()
        .chain(kept.filter_map(|directory| process::find(program, [directory])))
        .collect()
}

/// Where distributions have it of the programs of this version.
pub(super) fn of_version(program: &str, major: u32) -> Option<PathBuf> {
    let directories = [format!("{DEBIAN}/{major}/bin"), format!("/usr/pgsql-{major}/bin")];
    process::find(program, directories.map(PathBuf::from))
}

/// Where distributions keep several versions, `PARENT/PREFIX15/bin`; the newest last.
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

/// The major version in what a program of PostgreSQL's answers to `--version`, or in what a server
/// says of itself.
pub(crate) fn major(text: &str) -> Option<u32> {
    text.split_whitespace()
        .find_map(|word| word.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_told_by_programs_and_servers() {
        assert_eq!(major("pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"), Some(15));
        assert_eq!(major("18beta2"), Some(18));
        assert_eq!(major("nonsense"), None);
    }
}
