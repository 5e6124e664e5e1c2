//! The switch: replaces the live data by the staged data. The files and Redis are exchanged by
//! renames and the databases by their names, so it takes moments for any amount of data.

use anyhow::{Context, Result, ensure};

use super::undo;
use crate::config::Config;
use crate::machine::{Base, Machine};
use crate::runs::paused;
use crate::runs::restore::{RestoreJournal, State};
use crate::stores::Restoration;
use crate::stores::restoration::{self, plan};
use crate::systemd::{ServiceManager, notify};
use crate::units::{Plan, Restore, Unit};

/// Replaces the live data of all stores. After an error, the old data is put back at once. If it is
/// killed, the journal keeps GitLab down until an undo or another restore.
pub async fn switch<M: ServiceManager>(
    config: &Config,
    base: Base<'_>,
    connect: impl AsyncFnOnce() -> Result<M>,
) -> Result<()> {
    if plan(base.root)?.run.is_none() {
        return Ok(());
    }
    let mut journal = RestoreJournal::load(base.root)?
        .context("nothing is staged: this helper is started by its unit only")?;
    let manager = connect().await?;
    let machine = base.with(&manager);
    ensure_loaded(config, machine).await?;
    // GitLab was up until now, if the data was loaded first.
    if let Some(paused) = paused::load(base.root)? {
        journal.paused = paused;
    }
    let mut stores = restoration::all(config, base.root);
    // The journal still says that nothing is replaced. If a stop fails, the undo starts the servers
    // again.
    for store in &mut stores {
        store.stop_servers(&journal.plan, machine).await?;
    }
    match replace(&mut stores, machine, &mut journal).await {
        Ok(()) => Ok(()),
        Err(error) => {
            tracing::error!("{error:#}: putting back the old data");
            notify::status("putting back the old data");
            for store in &mut stores {
                store.roll_back().await;
            }
            undo::put_back(&mut stores, machine, &mut journal)
                .await
                .with_context(|| format!("{error:#}; and the old data cannot be put back"))?;
            Err(error.context("nothing has changed: the old data is in place"))
        }
    }
}

/// Fails unless every step that loads data has succeeded in this restore: the window may have been
/// opened without them.
pub async fn ensure_loaded(config: &Config, machine: Machine<'_>) -> Result<()> {
    let since = machine.manager.state(&Unit::from(Restore::Run).to_string()).await?.inactive_exit;
    for step in Plan::new(config).loads() {
        let state = machine.manager.state(&Unit::from(step).to_string()).await?;
        ensure!(
            state.succeeded_since(since),
            "nothing has changed: {} has not succeeded in this restore ({})",
            state.name,
            state.result
        );
    }
    Ok(())
}

/// Replaces the data, and records each state in the journal before it is reached.
async fn replace(
    stores: &mut [Box<dyn Restoration + '_>],
    machine: Machine<'_>,
    journal: &mut RestoreJournal,
) -> Result<()> {
    for store in &mut *stores {
        store.prepare(journal).await?;
    }
    rustix::fs::sync();
    journal.state = State::Switching;
    journal.save(machine.root)?;

    for store in &mut *stores {
        store.put(journal, machine).await?;
    }
    for store in &mut *stores {
        store.commit(journal).await?;
    }
    rustix::fs::sync();
    journal.state = State::Switched;
    journal.switched = Some(machine.clock.now());
    journal.save(machine.root)
}
