//! The interface of a store: what a run, its manifest, a verify and a restore need from it.

use std::path::Path;

use anyhow::Result;
use async_trait::async_trait;

use super::Restoration;
use super::inspection::Inspection;
use crate::config::Config;
use crate::finding::Finding;
use crate::host::clock::Clock;
use crate::machine::Machine;
use crate::paths::RootDirectory;
use crate::runs::{Component, Database, Manifest, Part};

/// A place where GitLab keeps data. The units of a store capture its data; everything else that a
/// run, a verify or a restore needs from the store is a method of this trait.
#[async_trait(?Send)]
pub trait Store {
    /// The name of the store's part in a run.
    fn name(&self) -> &'static str;

    /// Whether the configuration backs this store up: then a run without its part is incomplete.
    fn is_backed_up(&self, config: &Config) -> bool;

    /// Whether the store's capture is dumps in the directory of its name in the staging directory.
    fn is_dumped(&self) -> bool {
        true
    }

    /// Checks as root whether the store can be captured. Changes nothing.
    async fn preflight(&self, config: &Config) -> Vec<Finding>;

    /// Checks by trying: creates something and removes it again. A run does this before it stops
    /// GitLab; `gitlab-backup check` does not.
    async fn trial(&self, _config: &Config, _clock: &dyn Clock) -> Vec<Finding> {
        Vec::new()
    }

    /// Reads from the staging directory what the manifest records about the capture.
    fn captured(&self, _root: &RootDirectory) -> Result<Contribution> {
        Ok(Contribution::default())
    }

    /// Reads the store's part back, as thoroughly as the inspection's depth says, and reports each
    /// finding. `place` is an empty directory that is removed afterwards.
    ///
    /// # Errors
    /// If the inspection itself cannot continue. An error in the part is a finding.
    async fn verify(
        &self,
        inspection: &mut Inspection<'_>,
        manifest: &Manifest,
        part: &Part,
        place: &Path,
    ) -> Result<()>;

    /// The units that this store's [`Restoration`] stops and starts itself.
    async fn driven_units(&self, _config: &Config, _machine: Machine<'_>) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    /// The store's side of a restore.
    fn restoration<'a>(
        &self,
        config: &'a Config,
        root: &'a RootDirectory,
    ) -> Box<dyn Restoration + 'a>;
}

/// What a store's capture adds to the manifest.
#[derive(Debug, Default)]
pub struct Contribution {
    /// The servers and their versions.
    pub versions: Vec<Component>,
    /// The databases.
    pub databases: Vec<Database>,
    /// One sentence for each thing that is left out of the run without making it incomplete.
    pub left_out: Vec<String>,
}
