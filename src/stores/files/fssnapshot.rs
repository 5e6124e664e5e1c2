//! The bracket of the file system snapshots: taken in the window, removed at the end of the run.

use std::thread;

use anyhow::{Context, Result, anyhow};

use crate::config::Config;
use crate::host::own;
use crate::paths::{self, RootDirectory};
use crate::runs::record::read_json;
use crate::stores::files::{CapturePlan, remove_clones};
use crate::systemd::notify;
use crate::volume::{self, VolumeSnapshot};

/// Takes all snapshots of the plan in parallel, notifies systemd that the window may close, and
/// mounts the snapshots.
pub fn begin(config: &Config, root: &RootDirectory) -> Result<()> {
    let plan = CapturePlan::current(root)?;
    let size = config.files.lvm_snapshot_size.as_str();
    in_parallel(&plan.snapshots, |snapshot| {
        let taken = volume::volumes(snapshot.kind, size, root).take(snapshot);
        taken.with_context(|| format!("cannot take a snapshot of {}", snapshot.origin))
    })?;
    notify::ready("all snapshots are taken");
    in_parallel(&plan.snapshots, |snapshot| {
        let mounted = volume::volumes(snapshot.kind, size, root).mount(snapshot);
        mounted.with_context(|| format!("cannot mount the snapshot of {}", snapshot.origin))
    })
}

/// Calls `action` for each snapshot, in a thread each. Returns the first error in the order of
/// `snapshots`, when all threads have ended.
fn in_parallel(
    snapshots: &[VolumeSnapshot],
    action: impl Fn(&VolumeSnapshot) -> Result<()> + Sync,
) -> Result<()> {
    let action = &action;
    thread::scope(|scope| {
        let threads: Vec<_> =
            snapshots.iter().map(|snapshot| scope.spawn(move || action(snapshot))).collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| anyhow!("a thread panicked"))?)
    })
}

/// Removes the snapshots and the clones, whether or not they were completed. Does not read the
/// configuration: snapshots must be removed even if the file has become invalid since.
pub fn end(root: &RootDirectory) -> Result<()> {
    let record = root.at(paths::FREEZE);
    let Some(plan) = read_json::<CapturePlan>(&record)? else { return Ok(()) };
    let mut failures = Vec::new();
    for snapshot in &plan.snapshots {
        // The size only matters when a snapshot is taken.
        if let Err(error) = volume::volumes(snapshot.kind, "", root).remove(snapshot) {
            failures.push(format!(
                "cannot remove snapshot {} of {}: {error:#}",
                snapshot.name, snapshot.origin
            ));
        }
    }
    let clones = remove_clones(root, &plan.clone_directories());
    failures.extend(clones.err().map(|error| format!("{error:#}")));
    if failures.is_empty() {
        return own::remove(record);
    }
    Err(anyhow!("{}", failures.join("; ")).context("the next run tries again"))
}
