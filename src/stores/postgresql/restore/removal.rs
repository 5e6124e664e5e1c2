//! Removes what a restore has created, or has replaced.

use anyhow::{Result, bail};

use super::databases::{drop_one, end_ours, mark, marked, numbers};
use crate::config::Config;
use crate::runs::restore::RestorePlan;
use crate::stores::postgresql::client::{Client, MAINTENANCE};
use crate::stores::postgresql::sandbox;

/// Drops what restores have created under the names that this one is going to use, and no journal
/// knows any more.
pub(super) async fn clear(config: &Config, plan: &RestorePlan) -> Result<()> {
    let Some(postgresql) = config.postgresql.as_ref().filter(|_| !plan.databases.is_empty()) else {
        return Ok(());
    };
    let session = Client::restoring(postgresql)?.insist(MAINTENANCE).await?;
    end_ours(&session).await?;
    let marked = marked(&session).await?;
    for database in plan.databases.iter().filter(|database| marked.contains(&database.staged)) {
        drop_one(&session, &database.staged, None).await?;
    }
    Ok(())
}

/// Drops the staged databases, and the role that may still own one of them. Sessions of a restore
/// that was killed are ended first: one of them may just be creating a database.
pub(super) async fn unstage(config: &Config, plan: &RestorePlan) -> Result<()> {
    let Some(postgresql) = config.postgresql.as_ref().filter(|_| !plan.databases.is_empty()) else {
        return Ok(());
    };
    let session = Client::restoring(postgresql)?.insist(MAINTENANCE).await?;
    end_ours(&session).await?;
    for database in &plan.databases {
        drop_one(&session, &database.staged, database.numbers.map(|numbers| numbers.new)).await?;
    }
    if sandbox::is_needed(&session).await? { sandbox::retire(&session).await } else { Ok(()) }
}

/// Drops a database that was put aside.
///
/// # Errors
/// With what holds it.
pub(super) async fn forget(config: &Config, name: &str, number: Option<u32>) -> Result<()> {
    let Some(postgresql) = &config.postgresql else { bail!("[postgresql] enable is false") };
    drop_one(&Client::restoring(postgresql)?.insist(MAINTENANCE).await?, name, number).await
}

/// Marks a database that was put aside and cannot be dropped now, so that no backup takes it for one
/// of GitLab's.
pub(super) async fn disown(config: &Config, name: &str, number: Option<u32>) -> Result<()> {
    let Some(postgresql) = &config.postgresql else { return Ok(()) };
    let session = Client::restoring(postgresql)?.insist(MAINTENANCE).await?;
    let is_it = number.is_some() && numbers(&session).await?.get(name).copied() == number;
    if is_it { mark(&session, name).await } else { Ok(()) }
}

/// Removes the role as which the dumps were loaded.
pub(super) async fn retire(config: &Config) -> Result<()> {
    let Some(postgresql) = &config.postgresql else { return Ok(()) };
    let session = Client::restoring(postgresql)?.insist(MAINTENANCE).await?;
    if sandbox::is_needed(&session).await? { sandbox::retire(&session).await } else { Ok(()) }
}
