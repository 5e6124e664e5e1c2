//! What a store is to those who do not know which one it is.

use std::path::Path;

use anyhow::Result;
use async_trait::async_trait;

use super::Restoration;
use super::inspection::Inspection;
use crate::config::Config;
use crate::finding::Finding;
use crate::machine::Machine;
use crate::runs::{Component, Database, Manifest, Part};

/// A place where GitLab keeps data. Its capture is the work of its own units; what everybody else
/// asks of it is here.
#[async_trait(?Send)]
pub trait Store {
    /// The name of its part in a run.
    fn name(&self) -> &'static str;

    /// Whether a run with this configuration is only complete with its part.
    fn is_backed_up(&self, config: &Config) -> bool;

    /// What root can find out before a run, without changing anything.
    async fn preflight(&self, config: &Config) -> Vec<Finding>;

    /// What only a try can show. A run tries before it touches GitLab; `check` does not.
    async fn trial(&self, _config: &Config) -> Vec<Finding> {
        Vec::new()
    }

    /// What the manifest records of the capture in the staging directory.
    fn captured(&self) -> Result<Captured> {
        Ok(Captured::default())
    }

    /// Reads its part back as far as the inspection's depth asks for, and reports each finding.
    /// `place` is an empty directory that is removed afterwards.
    ///
    /// # Errors
    /// If the inspection itself cannot go on; what is wrong with the part is a finding.
    async fn verify(
        &self,
        inspection: &mut Inspection<'_>,
        manifest: &Manifest,
        part: &Part,
        place: &Path,
    ) -> Result<()>;

    /// The units that its side of a restore stops and starts itself.
    async fn driven_units(&self, _config: &Config, _machine: Machine<'_>) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    /// Its side of a restore.
    fn restoration<'a>(&self, config: &'a Config) -> Box<dyn Restoration + 'a>;
}

/// What a store's capture adds to the manifest.
#[derive(Debug, Default)]
pub struct Captured {
    /// The servers and their versions.
    pub versions: Vec<Component>,
    /// The databases.
    pub databases: Vec<Database>,
    /// What could not be captured and is not missed, in words.
    pub left_out: Vec<String>,
}
