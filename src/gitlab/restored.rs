//! Finishes a restore whose executor has ended before GitLab answered.

use anyhow::Result;

use crate::machine::Machine;
use crate::runs::restore::RestoreJournal;
use crate::units::{Restore, Unit};

/// Called when GitLab has answered: starts the last step of a restore that is waiting for that.
pub async fn finish_later(machine: Machine<'_>) -> Result<()> {
    let manager = machine.manager;
    let waits = RestoreJournal::load(machine.root)?
        .is_some_and(|journal| journal.state.has_taken_place() && !journal.undo);
    if !waits || !manager.state(&Unit::from(Restore::Run).to_string()).await?.is_settled() {
        return Ok(());
    }
    let finish = Unit::from(Restore::Finish).to_string();
    tracing::info!("GitLab runs with the restored data: removing the old data");
    manager.reset_failed(&finish).await?;
    manager.start_later(&finish).await
}
