//! At boot: a GitLab that is half old and half new is not started.

use anyhow::Result;

use crate::config::Config;
use crate::paths::RootDirectory;
use crate::runs::restore::Journal;
use crate::systemd::{Manager, Mode, ServiceManager};
use crate::units::{Plan, Restore};

/// Cancels the start of every writer, whose start jobs wait behind this unit: also where a
/// configuration cannot be read.
pub async fn guard(writers: &[String], config: Result<Config>) -> Result<()> {
    let Some(why) = Journal::half_way(&RootDirectory::host()) else { return Ok(()) };
    tracing::error!("{why}");
    let manager = Manager::connect().await?;
    for writer in writers {
        manager.stop(writer, Mode::Replace).await?;
    }
    match Plan::new(&config?).needed(Restore::KeepDown.into()) {
        // What starts these comes later, and asks nobody.
        Some(unit) => manager.start(&unit.to_string(), Mode::Replace).await.map(drop),
        None => Ok(()),
    }
}
