//! Drops the databases and the role of a restore, and the old databases.

use anyhow::{Result, bail};

use super::databases::{drop_database, end_sessions_of_restores, list_marked, mark, oids};
use crate::config::Config;
use crate::runs::restore::RestorePlan;
use crate::stores::postgresql::client::{Client, MAINTENANCE};
use crate::stores::postgresql::sandbox;

/// Drops databases of earlier restores, in no journal any more, that have the names of the staged
/// databases of this plan.
pub(super) async fn remove_stale(config: &Config, plan: &RestorePlan) -> Result<()> {
    let Some(postgresql) = config.postgresql.as_ref().filter(|_| !plan.databases.is_empty()) else {
        return Ok(());
    };
    let session = Client::restoring(postgresql)?.connect_ending_blockers(MAINTENANCE).await?;
    end_sessions_of_restores(&session).await?;
    let marked = list_marked(&session).await?;
    for database in plan.databases.iter().filter(|database| marked.contains(&database.staged)) {
        drop_database(&session, &database.staged, None).await?;
    }
    Ok(())
}

/// Drops the staged databases, and the role that may own one of them. Ends the sessions of a killed
/// restore first: one of them may be creating a database.
pub(super) async fn unstage(config: &Config, plan: &RestorePlan) -> Result<()> {
    let Some(postgresql) = config.postgresql.as_ref().filter(|_| !plan.databases.is_empty()) else {
        return Ok(());
    };
    let session = Client::restoring(postgresql)?.connect_ending_blockers(MAINTENANCE).await?;
    end_sessions_of_restores(&session).await?;
    for database in &plan.databases {
        let number = database.numbers.map(|numbers| numbers.new);
        drop_database(&session, &database.staged, number).await?;
    }
    if sandbox::is_needed(&session).await? { sandbox::drop_role(&session).await } else { Ok(()) }
}

/// Drops an old database, which the restore has replaced.
///
/// # Errors
/// If the database cannot be dropped. The error names what holds it.
pub(super) async fn drop_replaced(config: &Config, name: &str, number: Option<u32>) -> Result<()> {
    let Some(postgresql) = &config.postgresql else { bail!("[postgresql] enable is false") };
    let session = Client::restoring(postgresql)?.connect_ending_blockers(MAINTENANCE).await?;
    drop_database(&session, name, number).await
}

/// Marks an old database that cannot be dropped, so that backups leave it out.
pub(super) async fn mark_replaced(config: &Config, name: &str, number: Option<u32>) -> Result<()> {
    let Some(postgresql) = &config.postgresql else { return Ok(()) };
    let session = Client::restoring(postgresql)?.connect_ending_blockers(MAINTENANCE).await?;
    let is_same = number.is_some() && oids(&session).await?.get(name).copied() == number;
    if is_same { mark(&session, name).await } else { Ok(()) }
}

/// Drops the role as which the dumps were loaded.
pub(super) async fn drop_loading_role(config: &Config) -> Result<()> {
    let Some(postgresql) = &config.postgresql else { return Ok(()) };
    let session = Client::restoring(postgresql)?.connect_ending_blockers(MAINTENANCE).await?;
    if sandbox::is_needed(&session).await? { sandbox::drop_role(&session).await } else { Ok(()) }
}
