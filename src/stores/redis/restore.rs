//! Restores Redis: stops the unit of each server, replaces its file, and starts the unit, because a
//! server reads its file only when it starts.

mod plan;
mod service;
mod staged;
mod unit;

use std::path::Path;

use anyhow::Result;
use async_trait::async_trait;

use super::REDIS;
use crate::config::Config;
use crate::machine::Machine;
use crate::paths::{self, RootDirectory};
use crate::repository::Engine;
use crate::runs::restore::{Leftover, Places, Request, RestoreJournal, RestorePlan};
use crate::stores::restoration::{Asked, Restoration, dump_directory, extract_part};
use crate::stores::space::Needed;
use crate::stores::{leftover, moves};
use crate::systemd::notify;

pub(super) use unit::units;

/// The Redis side of a restore.
pub(super) struct RedisRestoration<'a> {
    pub config: &'a Config,
    pub root: &'a RootDirectory,
}

#[async_trait(?Send)]
impl Restoration for RedisRestoration<'_> {
    fn is_wanted(&self, request: &Request) -> bool {
        request.wants(REDIS)
    }

    async fn plan(&mut self, asked: &Asked<'_>, plan: &mut RestorePlan) -> Result<()> {
        plan.redis_part = Some(asked.part.clone());
        plan.redis = plan::plan_instances(self.config, self.root, asked).await?;
        Ok(())
    }

    fn space(
        &self,
        plan: &RestorePlan,
        _: &dyn Engine,
        _: Option<&Path>,
        needed: &mut Needed,
    ) -> Result<()> {
        let Some(part) = &plan.redis_part else { return Ok(()) };
        needed.add(&self.root.at(paths::STATE), part.bytes);
        plan.redis.iter().for_each(|redis| needed.add(&redis.directory, part.bytes));
        Ok(())
    }

    fn extract_dumps(&self, plan: &RestorePlan) -> Result<()> {
        let Some(part) = &plan.redis_part else { return Ok(()) };
        extract_part(self.config, self.root, part, &[])
    }

    async fn stop_servers(&mut self, plan: &RestorePlan, machine: Machine<'_>) -> Result<()> {
        service::stop(plan, machine.manager).await
    }

    async fn prepare(&mut self, journal: &mut RestoreJournal) -> Result<()> {
        journal.redis_moves.clear();
        let Some(part) = &journal.plan.redis_part else { return Ok(()) };
        let dumps = dump_directory(self.root, part)?;
        for instance in &mut journal.plan.redis {
            journal.redis_moves.push(staged::stage(instance, &dumps)?);
        }
        Ok(())
    }

    async fn put(&mut self, journal: &RestoreJournal, machine: Machine<'_>) -> Result<()> {
        let Machine { manager, clock, .. } = machine;
        notify::status("putting Redis' files in place");
        // Stop them again: a unit that wants one of them may have started it.
        service::stop(&journal.plan, manager).await?;
        let stopped_at = clock.monotonic();
        moves::forward(&journal.redis_moves)?;
        service::ensure_not_started(&journal.plan, manager, stopped_at).await?;
        service::start(self.config, &journal.plan, manager).await
    }

    async fn prove(&mut self, journal: &RestoreJournal) -> Result<()> {
        moves::prove(&journal.redis_moves)
    }

    fn forgo(&self, journal: &mut RestoreJournal) -> Vec<String> {
        moves::forgo(&mut journal.redis_moves)
    }

    fn move_back(&self, journal: &RestoreJournal) -> Result<()> {
        moves::backward(&journal.redis_moves)
    }

    async fn start_servers(&mut self, plan: &RestorePlan, machine: Machine<'_>) -> Result<()> {
        service::start(self.config, plan, machine.manager).await
    }

    async fn unstage(&mut self, plan: &RestorePlan) -> Result<()> {
        // Try all of them, even if one cannot be removed.
        let removed = plan.redis.iter().map(|redis| {
            let account = redis.account;
            account.act(|| moves::unstage(&redis.places))
        });
        let all: Vec<Result<()>> = removed.collect();
        all.into_iter().collect()
    }

    async fn finish(&mut self, journal: &RestoreJournal) -> Result<Vec<Leftover>> {
        let mut left = Vec::new();
        for redis in &journal.plan.redis {
            let Places { staged, aside } = &redis.places;
            left.extend(leftover::remove(staged, Some(redis.account)));
            left.extend(leftover::remove(aside, Some(redis.account)));
        }
        Ok(left)
    }
}
