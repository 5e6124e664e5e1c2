//! Lets go what is held, in the reverse order, from the record alone.

use anyhow::{Result, ensure};

use super::kernel::Kernel;
use crate::paths::RootDirectory;
use crate::runs::held::{Group, Held, Taken};
use crate::systemd::ServiceManager;

/// Lets everything go. Does nothing if nothing is held.
///
/// # Errors
/// If something cannot be let go, or was not held until now: then the captured state is not of one
/// moment.
pub async fn release<M: ServiceManager>(
    root: &RootDirectory,
    kernel: &dyn Kernel,
    connect: impl AsyncFnOnce() -> Result<M>,
) -> Result<()> {
    let Some((held, mut lost)) = let_go(root, kernel)? else { return Ok(()) };
    if !held.proven {
        return Ok(());
    }
    // After everything is let go: the bus may be slow.
    let manager = connect().await?;
    for group in held.groups() {
        let state = manager.state(&group.unit).await?;
        let is_same = state.invocation == group.invocation
            && state.main_pid == group.main_pid
            && state.active.is_up()
            && !state.has_job();
        if !is_same && !lost.contains(&group.unit) {
            lost.push(group.unit.clone());
        }
    }
    ensure!(
        lost.is_empty(),
        "not held to the end: {}: what was captured is not of one moment",
        lost.join(", ")
    );
    Ok(())
}

/// Lets everything go without the bus. Returns what was on record, and which units were not frozen
/// any more; none if nothing was on record.
pub fn let_go(root: &RootDirectory, kernel: &dyn Kernel) -> Result<Option<(Held, Vec<String>)>> {
    let Some(held) = Held::load(root)? else { return Ok(None) };
    let is_lost = |group: &&Group| !kernel.is_frozen(&group.path);
    let lost = held.groups().filter(is_lost).map(|group| group.unit.clone()).collect();
    undo(&held.taken, kernel)?;
    Held::clear(root)?;
    Ok(Some((held, lost)))
}

/// Lets these go, the last taken first. One that fails does not keep the others.
pub(super) fn undo(taken: &[Taken], kernel: &dyn Kernel) -> Result<()> {
    let mut failed = Ok(());
    for taken in taken.iter().rev() {
        let undone = match taken {
            Taken::Group(group) => kernel.thaw(&group.path),
            Taken::Listener(listener) => kernel.stop(listener, false),
        };
        if undone.is_err() {
            failed = undone;
        }
    }
    failed
}
