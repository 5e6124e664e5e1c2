//! What a store needs to verify its part of a run: the repository, the depth, a scratch directory,
//! and the receiver of the findings.

pub(crate) mod scratch;
pub(super) mod server;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use nix::unistd::User;
use rustix::fs::FileType;

use super::extract;
use crate::config::Config;
use crate::finding::Finding;
use crate::host::beneath::Directory;
use crate::repository::Engine;
use crate::runs::Part;
use scratch::Scratch;

/// How long a program may take to read an empty file.
const PATIENCE: Duration = Duration::from_secs(600);
/// Bytes per second that a program reads at least, on a slow disk.
const PACE: u64 = 1 << 20;

/// How long a program may take to read `bytes`: data that somebody else crafted must not block a
/// verify forever.
pub(super) fn patience(bytes: u64) -> Duration {
    PATIENCE + Duration::from_secs(bytes / PACE)
}

/// How thorough to be.
#[derive(Debug, Clone, Copy)]
pub struct Depth {
    /// Read every byte of the repository.
    pub read_data: bool,
    /// Check every Git repository instead of a sample.
    pub all_repositories: bool,
    /// Restore the dumps into throwaway servers.
    pub drill: bool,
}

/// A verify that is running.
pub struct Inspection<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// The repository.
    pub engine: &'a dyn Engine,
    /// How thorough to be.
    pub depth: Depth,
    /// The account for programs that read other people's data; none if this process is not root.
    pub user: Option<User>,
    pub(crate) scratch: Scratch,
    pub(crate) report: &'a mut dyn FnMut(Finding),
}

impl Inspection<'_> {
    /// Reports one finding.
    pub(super) fn report(&mut self, finding: Finding) {
        (self.report)(finding);
    }

    /// Extracts a part of dumps into `place`, and lets the programs that check them read it.
    pub(super) fn extract(&self, part: &Part, place: &Path) -> Result<()> {
        extract::in_child(self.config, &part.snapshot, place, &[])?;
        scratch::lend(&Directory::open(place)?, self.user.as_ref()).map(drop)
    }
}

/// Lists the entries of a part's directories, which are extracted in `place`.
pub(super) fn entries(part: &Part, place: &Path) -> Result<Vec<(PathBuf, FileType)>> {
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
