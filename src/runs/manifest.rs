//! The manifest: the last thing that a run writes. With it, the run is complete.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::host::beneath;
use crate::values::RunId;

use super::{Downtime, Quiesced};

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
    /// How long GitLab was down; none if the run ended before GitLab was up again.
    pub downtime_seconds: Option<f64>,
    /// The downtime, split.
    pub downtime: Option<Downtime>,
    /// The least time that GitLab was down, if the run ended before GitLab was up again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub downtime_longer_than: Option<f64>,
    /// How GitLab was kept from writing; none in runs that did not record it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quiesced: Option<Quiesced>,
    /// Problems that did not fail the run and that were known when the manifest was written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// The versions of GitLab, PostgreSQL, each Redis and this program.
    pub versions: Vec<Component>,
    /// The parts in the repository.
    pub parts: Vec<Part>,
    /// The databases in part `postgresql`; empty in runs that did not record them.
    #[serde(default)]
    pub databases: Vec<Database>,
    /// The previous complete run of this host; none for the first one, or in a run of another host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<RunId>,
}

impl Manifest {
    /// The version of a program in the run, if it is recorded.
    pub fn version(&self, program: &str) -> Option<&str> {
        let component = self.versions.iter().find(|component| component.name == program);
        component.map(|component| component.version.as_str())
    }

    /// The part of this name, if the run has it.
    pub fn part(&self, name: &str) -> Option<&Part> {
        self.parts.iter().find(|part| part.name == name)
    }
}

/// One database of PostgreSQL: what its dump does not contain, and statistics to verify it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Database {
    /// The name of the database.
    pub name: String,
    /// The directory of the dump, below the part's path.
    pub directory: String,
    /// The role that owns it.
    pub owner: String,
    /// PostgreSQL's name of the encoding.
    pub encoding: String,
    /// `LC_COLLATE`.
    pub collate: String,
    /// `LC_CTYPE`.
    pub ctype: String,
    /// `c` libc, `i` ICU, `b` builtin; none before PostgreSQL 15.
    pub provider: Option<String>,
    /// The locale of a provider other than libc.
    pub locale: Option<String>,
    /// The default tablespace of the database; none for the server's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tablespace: Option<String>,
    /// Whether the database is a template.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub template: bool,
    /// The size on the server, in bytes.
    pub bytes: u64,
    /// Rows of each table with data, by its quoted name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tables: BTreeMap<String, u64>,
    /// The last value of each sequence at the capture, by its quoted name. Only in the file beside
    /// the dumps, not in the manifest.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sequences: BTreeMap<String, i64>,
}

impl Database {
    /// The path of the dump below `dumps`. Checks the recorded name, which PostgreSQL's account
    /// could have changed.
    ///
    /// # Errors
    /// If the directory is not a plain file name.
    pub fn dump_in(&self, dumps: &Path) -> Result<PathBuf> {
        ensure!(
            beneath::is_name(self.directory.as_ref()),
            "the manifest names an invalid directory for the dump of database '{}': '{}'",
            self.name,
            self.directory
        );
        Ok(dumps.join(&self.directory))
    }
}

/// A program and its version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Component {
    /// The name of the program.
    pub name: String,
    /// The version that it reports; `unknown` if it could not be determined.
    pub version: String,
}

/// One part of a run: one snapshot in the repository.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// `files`, `postgresql`, `redis`, `steps`.
    pub name: String,
    /// The snapshot's id.
    pub snapshot: String,
    /// The paths in it.
    pub paths: Vec<PathBuf>,
    /// The size of its files, in bytes.
    pub bytes: u64,
    /// The number of files.
    pub files: u64,
    /// Seconds that storing it took.
    pub seconds: f64,
    /// `sha256-tree:ID`: the repository's hash of content and metadata of the whole part.
    pub checksum: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_is_always_below_the_directory_of_dumps() {
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
