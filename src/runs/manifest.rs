//! The manifest: the last thing that a run writes, and what makes it complete.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::host::beneath;
use crate::values::RunId;

use super::Downtime;

/// A complete run. Its JSON is stable: fields are added, never renamed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Manifest {
    /// The run.
    pub id: RunId,
    /// The host that was backed up.
    pub host: String,
    /// When the run started.
    pub started: Timestamp,
    /// When the manifest was written.
    pub finished: Timestamp,
    /// Always true: a run without a manifest is not listed.
    pub complete: bool,
    /// How long GitLab was down; none if its return was not seen.
    pub downtime_seconds: Option<f64>,
    /// The same, split.
    pub downtime: Option<Downtime>,
    /// Seconds that it was down at least, where its return was not seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub downtime_longer_than: Option<f64>,
    /// What was backed up: GitLab, PostgreSQL, each Redis, this program.
    pub versions: Vec<Component>,
    /// What is in the repository.
    pub parts: Vec<Part>,
    /// The databases in part `postgresql`; empty in runs that did not record them.
    #[serde(default)]
    pub databases: Vec<Database>,
    /// The complete run that this host made before; none if it was the first, or another host's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<RunId>,
}

/// One database of PostgreSQL: what its dump does not say, and how much is in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Database {
    /// Its name.
    pub name: String,
    /// Its dump, a directory below the part's path.
    pub directory: String,
    /// The role that owns it.
    pub owner: String,
    /// Its encoding, as PostgreSQL calls it.
    pub encoding: String,
    /// `LC_COLLATE`.
    pub collate: String,
    /// `LC_CTYPE`.
    pub ctype: String,
    /// `c` libc, `i` ICU, `b` builtin; none before PostgreSQL 15.
    pub provider: Option<String>,
    /// The locale of a provider other than libc.
    pub locale: Option<String>,
    /// The tablespace of what has none of its own; none for the server's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tablespace: Option<String>,
    /// Others are made like it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub template: bool,
    /// Bytes that it takes on the server.
    pub bytes: u64,
    /// Rows of each table with data, by its quoted name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tables: BTreeMap<String, u64>,
    /// The last value of each sequence, by its quoted name, as of the capture. Beside the dumps
    /// only, not in the manifest.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sequences: BTreeMap<String, i64>,
}

impl Database {
    /// Where its dump lies below `dumps`. PostgreSQL's account had the words in its hands until
    /// they were stored.
    ///
    /// # Errors
    /// If its directory is no name.
    pub fn dump_in(&self, dumps: &Path) -> Result<PathBuf> {
        ensure!(
            beneath::is_name(self.directory.as_ref()),
            "the dump of database '{}' is said to lie in '{}'",
            self.name,
            self.directory
        );
        Ok(dumps.join(&self.directory))
    }
}

/// A program and its version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Component {
    /// Its name.
    pub name: String,
    /// Its version as it tells it, `unknown` where it could not be found.
    pub version: String,
}

/// One part of a run, a snapshot of its own in the repository.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// `files`, `postgresql`, `redis`, `steps`.
    pub name: String,
    /// The snapshot's id.
    pub snapshot: String,
    /// The paths in it.
    pub paths: Vec<PathBuf>,
    /// Bytes of content.
    pub bytes: u64,
    /// Files in it.
    pub files: u64,
    /// How long storing it took.
    pub seconds: f64,
    /// `sha256-tree:ID`: the repository's hash over content and metadata of the whole part.
    pub checksum: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_lies_below_the_dumps_under_a_name() {
        let dump = |directory: &str| {
            Database { directory: directory.to_owned(), ..Database::default() }
                .dump_in(Path::new("/dumps"))
                .ok()
        };
        assert_eq!(dump("gitlabhq_production"), Some(PathBuf::from("/dumps/gitlabhq_production")));
        for directory in ["", ".", "..", "/etc", "a/b", "a/", "../dumps/a", "a/.."] {
            assert_eq!(dump(directory), None, "{directory:?}");
        }
    }
}
