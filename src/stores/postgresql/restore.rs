//! PostgreSQL's side of a restore. Every database is loaded under a temporary name while the old
//! one is still in use; then one transaction exchanges the names.

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
use crate::machine::Machine;
use crate::paths::{self, RootDirectory};
use crate::repository::Engine;
use crate::runs::restore::{
    Leftover, Numbers, Request, RestoreJournal, RestorePlan, StagedDatabase, Thing,
};
use crate::stores::restoration::{Asked, Refused, Restoration, extract_part};
use crate::stores::space::Needed;
use crate::systemd::notify;
use exchange::Exchange;

pub use staged::load;

/// The restore of the databases.
pub(super) struct PostgreSqlRestoration<'a> {
    config: &'a Config,
    root: &'a RootDirectory,
    exchange: Exchange<'a>,
}

impl<'a> PostgreSqlRestoration<'a> {
    pub fn new(config: &'a Config, root: &'a RootDirectory) -> Self {
        Self { config, root, exchange: Exchange::new(config, root) }
    }

    /// Drops an old database. If that fails, marks it and returns it as a leftover.
    async fn drop_replaced(&self, name: &str, number: Option<u32>) -> Option<Leftover> {
        let error = removal::drop_replaced(self.config, name, number).await.err()?;
        if let Err(error) = removal::mark_replaced(self.config, name, number).await {
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
        plan.databases = plan::plan(self.config, self.root, asked).await?;
        Ok(())
    }

    async fn rehearse(&mut self, plan: &RestorePlan) -> Result<()> {
        let Some(part) = &plan.postgresql else { return Ok(()) };
        rehearsal::rehearse(self.config, self.root, part, &plan.databases).await.context(POSTGRESQL)
    }

    /// Adds the space for the dumps only: the file system of the databases may be on another host.
    fn space(
        &self,
        plan: &RestorePlan,
        _: &dyn Engine,
        _: Option<&Path>,
        needed: &mut Needed,
    ) -> Result<()> {
        let dumps = plan.postgresql.as_ref().map_or(0, |part| part.bytes);
        needed.add(&self.root.at(paths::STATE), dumps);
        Ok(())
    }

    async fn remove_stale(&mut self, plan: &RestorePlan) -> Result<()> {
        removal::remove_stale(self.config, plan).await
    }

    fn extract_dumps(&self, plan: &RestorePlan) -> Result<()> {
        let Some(part) = &plan.postgresql else { return Ok(()) };
        extract_part(self.config, self.root, part, &[])
    }

    fn hand_over_dumps(&self, plan: &RestorePlan) -> Result<()> {
        let Some(part) = &plan.postgresql else { return Ok(()) };
        dumps::give_access(self.config, self.root, part)
    }

    async fn prepare(&mut self, journal: &mut RestoreJournal) -> Result<()> {
        note::note_differences(self.config, self.root, &journal.plan).await?;
        self.exchange.record_numbers(&mut journal.plan).await
    }

    async fn put(&mut self, journal: &RestoreJournal, _: Machine<'_>) -> Result<()> {
        notify::status("putting the databases in place");
        self.exchange.put(&journal.plan).await
    }

    async fn commit(&mut self, journal: &RestoreJournal) -> Result<()> {
        self.exchange.commit(&journal.plan).await
    }

    async fn roll_back(&mut self) {
        self.exchange.roll_back().await;
    }

    async fn prove(&mut self, journal: &RestoreJournal) -> Result<()> {
        self.exchange.prove(journal).await
    }

    /// Sessions in the databases can prevent the renames.
    async fn switch_back(&mut self, journal: &RestoreJournal) -> Result<bool, Refused> {
        // If the server cannot even be asked, nothing was renamed.
        let before = match self.exchange.renames_back(journal).await {
            Ok(before) => before,
            Err(error) => return Err(Refused { error, untouched: true }),
        };
        let Err(error) = self.exchange.put_back(journal).await else {
            return Ok(!before.is_empty());
        };
        // If the connection was lost, the server may have committed the renames.
        let untouched = self.exchange.renames_back(journal).await.is_ok_and(|now| now == before);
        Err(Refused { error, untouched })
    }

    async fn unstage(&mut self, plan: &RestorePlan) -> Result<()> {
        removal::unstage(self.config, plan).await
    }

    async fn finish(&mut self, journal: &RestoreJournal) -> Result<Vec<Leftover>> {
        let mut left = Vec::new();
        for StagedDatabase { replaced, numbers, .. } in &journal.plan.databases {
            // There was no such database before the restore.
            if matches!(numbers, Some(Numbers { old: None, .. })) {
                continue;
            }
            let number = numbers.and_then(|numbers| numbers.old);
            left.extend(self.drop_replaced(replaced, number).await);
        }
        if !journal.plan.databases.is_empty()
            && let Err(error) = removal::drop_loading_role(self.config).await
        {
            tracing::warn!("{error:#}");
        }
        Ok(left)
    }

    async fn retry(&mut self, leftover: &Leftover) -> Option<Option<Leftover>> {
        let Thing::Database { name, number } = &leftover.thing else { return None };
        let failed = removal::drop_replaced(self.config, name, *number).await.err();
        Some(failed.map(|error| Leftover { why: format!("{error:#}"), ..leftover.clone() }))
    }
}
