//! The guard at boot: prevents the start of a GitLab whose data is half old and half new.

use anyhow::Result;

use crate::config::Config;
use crate::paths::RootDirectory;
use crate::runs::restore::RestoreJournal;
use crate::systemd::{Mode, ServiceManager};
use crate::units::{Plan, Restore};

/// If a restore ended half way, stops every writer. Their start jobs are ordered after this unit,
/// so they are cancelled. This works even without a valid configuration, because the unit names the
/// writers.
pub async fn guard<M: ServiceManager>(
    writers: &[String],
    config: Result<Config>,
    root: &RootDirectory,
    connect: impl AsyncFnOnce() -> Result<M>,
) -> Result<()> {
    let Some(why) = RestoreJournal::half_way(root) else { return Ok(()) };
    tracing::error!("{why}");
    let manager = connect().await?;
    for writer in writers {
        manager.stop(writer, Mode::Replace).await?;
    }
    match Plan::new(&config?).needed(Restore::KeepDown.into()) {
        // Services that systemd does not manage are started later, without a job that could be
        // cancelled: another unit keeps those down.
        Some(unit) => manager.start(&unit.to_string(), Mode::Replace).await.map(drop),
        None => Ok(()),
    }
}
