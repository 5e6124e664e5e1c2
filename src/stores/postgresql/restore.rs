//! PostgreSQL's side of a restore: every database is loaded under another name, with the old one in
//! use; one transaction exchanges the names.

mod databases;
mod dumps;
mod exchange;
mod note;
mod plan;
mod rehearsal;
mod removal;
mod staged;

use std::path::Path;

use anyhow::{Context, Result};
use async_trait::async_trait;

use super::POSTGRESQL;
use crate::config::Config;
use crate::paths;
use crate::repository::Engine;
use crate::runs::restore::{
    Journal, Leftover, Numbers, Request, RestorePlan, StagedDatabase, Thing,
};
use crate::stores::restoration::{Asked, Refused, Restoration};
use crate::stores::space::Needed;
use crate::systemd::{ServiceManager, notify};
use exchange::Exchange;

pub use staged::load;

/// The databases of a restore.
pub(super) struct PostgreSqlRestoration<'a> {
    config: &'a Config,
    exchange: Exchange<'a>,
}

impl<'a> PostgreSqlRestoration<'a> {
    pub fn new(config: &'a Config) -> Self {
        Self { config, exchange: Exchange::new(config) }
    }

    /// Drops a database that was put aside. Returns it if that fails.
    async fn drop_replaced(&self, name: &str, number: Option<u32>) -> Option<Leftover> {
        let error = removal::forget(self.config, name, number).await.err()?;
        if let Err(error) = removal::disown(self.config, name, number).await {
            tracing::warn!("{error:#}");
        }
        let thing = Thing::Database { name: name.to_owned(), number };
        Some(Leftover { thing, why: format!("{error:#}"), by_hand: false })
    }
}

#[async_trait(?Send)]
impl Restoration for PostgreSqlRestoration<'_> {
    fn is_wanted(&self, request: &Request) -> bool {
        request.wants(POSTGRESQL)
    }

    async fn plan(&mut self, asked: &Asked<'_>, plan: &mut RestorePlan) -> Result<()> {
        plan.postgresql = Some(asked.part.clone());
        plan.databases = plan::plan(self.config, asked.manifest, asked.part).await?;
        Ok(())
    }

    async fn rehearse(&mut self, plan: &RestorePlan) -> Result<()> {
        let Some(part) = &plan.postgresql else { return Ok(()) };
        rehearsal::rehearse(self.config, part, &plan.databases).await.context(POSTGRESQL)
    }

    /// What the databases take is the server's own file system's, which may be on another machine.
    fn space(
        &self,
        plan: &RestorePlan,
        _: &dyn Engine,
        _: Option<&Path>,
        needed: &mut Needed,
    ) -> Result<()> {
        let dumps = plan.postgresql.as_ref().map_or(0, |part| part.bytes);
        needed.add(Path::new(paths::STATE), dumps);
        Ok(())
    }

    async fn remove_stale(&mut self, plan: &RestorePlan) -> Result<()> {
        removal::clear(self.config, plan).await
    }

    fn extract_dumps(&self, plan: &RestorePlan) -> Result<()> {
        let Some(part) = &plan.postgresql else { return Ok(()) };
        dumps::extract(self.config, part, &[])
    }

    async fn prepare(&mut self, journal: &mut Journal) -> Result<()> {
        note::not_as_before(self.config, &journal.plan).await?;
        self.exchange.number(&mut journal.plan).await
    }

    async fn put(&mut self, journal: &Journal, _: &dyn ServiceManager) -> Result<()> {
        notify::status("putting the databases in place");
        self.exchange.put(&journal.plan).await
    }

    async fn commit(&mut self, journal: &Journal) -> Result<()> {
        self.exchange.commit(&journal.plan).await
    }

    async fn roll_back(&mut self) {
        self.exchange.roll_back().await;
    }

    async fn prove(&mut self, journal: &Journal) -> Result<()> {
        self.exchange.prove(journal).await
    }

    /// Others may be in the databases, and keep them from being renamed.
    async fn switch_back(&mut self, journal: &Journal) -> Result<(), Refused> {
        let before = match self.exchange.way(journal).await {
            Ok(before) => before,
            Err(error) => return Err(Refused { error, untouched: true }),
        };
        let Err(error) = self.exchange.back(journal).await else { return Ok(()) };
        // A server that was lost may have done it.
        let untouched = self.exchange.way(journal).await.is_ok_and(|now| now == before);
        Err(Refused { error, untouched })
    }

    async fn unstage(&mut self, plan: &RestorePlan) -> Result<()> {
        removal::unstage(self.config, plan).await
    }

    async fn finish(&mut self, journal: &Journal) -> Result<Vec<Leftover>> {
        let mut left = Vec::new();
        for StagedDatabase { replaced, numbers, .. } in &journal.plan.databases {
            // There was none before.
            if matches!(numbers, Some(Numbers { old: None, .. })) {
                continue;
            }
            let number = numbers.and_then(|numbers| numbers.old);
            left.extend(self.drop_replaced(replaced, number).await);
        }
        if !journal.plan.databases.is_empty()
            && let Err(error) = removal::retire(self.config).await
        {
            tracing::warn!("{error:#}");
        }
        Ok(left)
    }

    async fn retry(&mut self, leftover: &Leftover) -> Option<Option<Leftover>> {
        let Thing::Database { name, number } = &leftover.thing else { return None };
        let failed = removal::forget(self.config, name, *number).await.err();
        Some(failed.map(|error| Leftover { why: format!("{error:#}"), ..leftover.clone() }))
    }
}
