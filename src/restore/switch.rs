//! The replacement: everything new is staged, and takes the place of the old. Done in moments, at
//! any size.

use anyhow::{Context, Result};
use jiff::Timestamp;

use super::undo;
use crate::config::Config;
use crate::paths::RootDirectory;
use crate::runs::restore::{Journal, State};
use crate::stores::Restoration;
use crate::stores::restoration::{self, plan};
use crate::systemd::{Manager, ServiceManager, notify};

/// Replaces. An error is taken back at once, and then nothing has changed; killed, it leaves a
/// journal by which GitLab stays down.
pub async fn switch(config: &Config) -> Result<()> {
    if plan()?.run.is_none() {
        return Ok(());
    }
    let mut journal = Journal::load(&RootDirectory::host())?
        .context("nothing is laid out: this helper is started by its unit only")?;
    let manager = Manager::connect().await?;
    let mut stores = restoration::all(config);
    // Before the journal says so: a server that is only stopped is started again by the undo.
    for store in &mut stores {
        store.stop_servers(&journal.plan, &manager).await?;
    }
    match replace(&mut stores, &manager, &mut journal).await {
        Ok(()) => Ok(()),
        Err(error) => {
            tracing::error!("{error:#}: putting back what was there before");
            notify::status("putting back what was there before");
            for store in &mut stores {
                store.roll_back().await;
            }
            undo::back(&mut stores, &manager, &mut journal).await.with_context(|| {
                format!("{error:#}; and what was there before cannot be put back")
            })?;
            Err(error.context("nothing is changed: what was there before is in place"))
        }
    }
}

async fn replace(
    stores: &mut [Box<dyn Restoration + '_>],
    manager: &dyn ServiceManager,
    journal: &mut Journal,
) -> Result<()> {
    for store in &mut *stores {
        store.prepare(journal).await?;
    }
    rustix::fs::sync();
    journal.state = State::Switching;
    journal.save(&RootDirectory::host())?;

    for store in &mut *stores {
        store.put(journal, manager).await?;
    }
    for store in &mut *stores {
        store.commit(journal).await?;
    }
    rustix::fs::sync();
    journal.state = State::Switched;
    journal.switched = Some(Timestamp::now());
    journal.save(&RootDirectory::host())
}
