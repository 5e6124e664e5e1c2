//! The [`Store`] of Redis: the interface through which the manifest, verify and restore use it.

use std::path::Path;

use anyhow::Result;
use async_trait::async_trait;

use super::restore::{RedisRestoration, units};
use super::save::Saves;
use super::{REDIS, preflight, trial, verify};
use crate::config::Config;
use crate::finding::Finding;
use crate::host::clock::Clock;
use crate::machine::Machine;
use crate::paths::{self, RootDirectory};
use crate::runs::record::read_json;
use crate::runs::{Component, Manifest, Part};
use crate::stores::inspection::Inspection;
use crate::stores::{Contribution, Restoration, Store};

/// The instances of `[[redis]]`.
pub struct RedisStore;

#[async_trait(?Send)]
impl Store for RedisStore {
    fn name(&self) -> &'static str {
        REDIS
    }

    fn is_backed_up(&self, config: &Config) -> bool {
        !config.redis.is_empty()
    }

    async fn preflight(&self, config: &Config) -> Vec<Finding> {
        preflight(config).await
    }

    async fn trial(&self, config: &Config, clock: &dyn Clock) -> Vec<Finding> {
        trial(config, clock).await
    }

    fn captured(&self, root: &RootDirectory) -> Result<Contribution> {
        let saves: Option<Saves> = read_json(&root.at(paths::STAGING).join("redis/redis.json"))?;
        let instances = saves.into_iter().flat_map(|saves| saves.instances);
        let versions = instances.map(|instance| Component {
            name: format!("redis-{}", instance.name),
            version: instance.version.trim().to_owned(),
        });
        Ok(Contribution { versions: versions.collect(), ..Contribution::default() })
    }

    async fn verify(
        &self,
        inspection: &mut Inspection<'_>,
        _: &Manifest,
        part: &Part,
        place: &Path,
    ) -> Result<()> {
        verify::verify(inspection, part, place).await
    }

    async fn driven_units(&self, config: &Config, machine: Machine<'_>) -> Result<Vec<String>> {
        units(config, machine).await
    }

    fn restoration<'a>(
        &self,
        config: &'a Config,
        root: &'a RootDirectory,
    ) -> Box<dyn Restoration + 'a> {
        Box::new(RedisRestoration { config, root })
    }
}
