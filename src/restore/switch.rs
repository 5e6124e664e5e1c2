//! The switch: replaces the live data by the staged data. The files and Redis are exchanged by
//! renames and the databases by their names, so it takes moments for any amount of data.

use anyhow::{Context, Result};
use jiff::Timestamp;

use super::undo;
use crate::config::Config;
use crate::paths::RootDirectory;
use crate::runs::restore::{RestoreJournal, State};
use crate::stores::Restoration;
use crate::stores::restoration::{self, plan};
use crate::systemd::{Manager, ServiceManager, notify};

/// Replaces the live data of all stores. After an error, the old data is put back at once. If it is
/// killed, the journal keeps GitLab down until an undo or another restore.
pub async fn switch(config: &Config) -> Result<()> {
    if plan()?.run.is_none() {
        return Ok(());
    }
    let mut journal = RestoreJournal::load(&RootDirectory::host())?
        .context("nothing is staged: this helper is started by its unit only")?;
    let manager = Manager::connect().await?;
    let mut stores = restoration::all(config);
    // The journal still says that nothing is replaced. If a stop fails, the undo starts the servers
    // again.
    for store in &mut stores {
        store.stop_servers(&journal.plan, &manager).await?;
    }
    match replace(&mut stores, &manager, &mut journal).await {
        Ok(()) => Ok(()),
        Err(error) => {
            tracing::error!("{error:#}: putting back the old data");
            notify::status("putting back the old data");
            for store in &mut stores {
                store.roll_back().await;
            }
            undo::put_back(&mut stores, &manager, &mut journal)
                .await
                .with_context(|| format!("{error:#}; and the old data cannot be put back"))?;
            Err(error.context("nothing has changed: the old data is in place"))
        }
    }
}

/// Replaces the data, and records each state in the journal before it is reached.
async fn replace(
    stores: &mut [Box<dyn Restoration + '_>],
    manager: &dyn ServiceManager,
    journal: &mut RestoreJournal,
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
