//! PostgreSQL's implementation of [`Store`].

use std::path::Path;

use anyhow::Result;
use async_trait::async_trait;

use super::restore::PostgreSqlRestoration;
use super::{Dumped, POSTGRESQL, verify};
use crate::config::Config;
use crate::finding::Finding;
use crate::paths::{self, RootDirectory};
use crate::runs::record::read_json;
use crate::runs::{Component, Manifest, Part};
use crate::stores::inspection::Inspection;
use crate::stores::{Contribution, Restoration, Store};

/// The databases of `[postgresql]`.
pub struct PostgreSql;

#[async_trait(?Send)]
impl Store for PostgreSql {
    fn name(&self) -> &'static str {
        POSTGRESQL
    }

    fn is_backed_up(&self, config: &Config) -> bool {
        config.postgresql.is_some()
    }

    /// Checks nothing: the server does not accept root through a socket. A separate unit, which
    /// runs as the configured OS user, does the preflight.
    async fn preflight(&self, _: &Config) -> Vec<Finding> {
        Vec::new()
    }

    fn captured(&self, root: &RootDirectory) -> Result<Contribution> {
        let path = root.at(paths::STAGING).join("postgresql/postgresql.json");
        let Some(mut dumped) = read_json::<Dumped>(&path)? else {
            return Ok(Contribution::default());
        };
        dumped.databases.iter_mut().for_each(|database| database.sequences.clear());
        let version = Component {
            name: POSTGRESQL.to_owned(),
            version: dumped.server_version.trim().to_owned(),
        };
        Ok(Contribution {
            versions: vec![version],
            databases: dumped.databases,
            left_out: dumped.left_out,
        })
    }

    async fn verify(
        &self,
        inspection: &mut Inspection<'_>,
        manifest: &Manifest,
        part: &Part,
        place: &Path,
    ) -> Result<()> {
        verify::verify(inspection, manifest, part, place).await
    }

    fn restoration<'a>(
        &self,
        config: &'a Config,
        root: &'a RootDirectory,
    ) -> Box<dyn Restoration + 'a> {
        Box::new(PostgreSqlRestoration::new(config, root))
    }
}
