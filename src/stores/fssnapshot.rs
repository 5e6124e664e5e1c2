//! The bracket of the file systems' snapshots: made in the window, gone at the end of the run.

use std::path::Path;
use std::thread;

use anyhow::{Context, Result, anyhow};

use crate::config::Config;
use crate::host::own;
use crate::paths;
use crate::runs::record::read_json;
use crate::stores::files::{CapturePlan, remove_clones};
use crate::systemd::notify;
use crate::volume::{self, Snapshot};

/// Makes all snapshots of the plan at once, tells systemd that the window may close, and mounts
/// them.
pub fn begin(config: &Config) -> Result<()> {
    let plan = CapturePlan::current()?;
    let size = config.files.lvm_snapshot_size.as_str();
    let each = |what: &(dyn Fn(&Snapshot) -> Result<()> + Sync)| {
        thread::scope(|scope| {
            let threads: Vec<_> =
                plan.snapshots.iter().map(|snapshot| scope.spawn(move || what(snapshot))).collect();
            threads
                .into_iter()
                .try_for_each(|thread| thread.join().map_err(|_| anyhow!("a thread died"))?)
        })
    };
    each(&|snapshot| {
        let taken = volume::volumes(snapshot.kind, size).take(snapshot);
        taken.with_context(|| format!("cannot make a snapshot of {}", snapshot.origin))
    })?;
    notify::ready("every snapshot is made");
    each(&|snapshot| {
        let mounted = volume::volumes(snapshot.kind, size).mount(snapshot);
        mounted.with_context(|| format!("cannot mount the snapshot of {}", snapshot.origin))
    })
}

/// Removes the snapshots and the clones, however far they got. Does not read the configuration: a
/// file that was broken meanwhile must not keep them.
pub fn end() -> Result<()> {
    let Some(plan) = read_json::<CapturePlan>(Path::new(paths::FREEZE))? else { return Ok(()) };
    let mut failures = Vec::new();
    for snapshot in &plan.snapshots {
        // What a snapshot may hold no longer matters.
        if let Err(error) = volume::volumes(snapshot.kind, "").undo(snapshot) {
            failures.push(format!(
                "cannot remove snapshot {} of {}: {error:#}",
                snapshot.name, snapshot.origin
            ));
        }
    }
    failures
        .extend(remove_clones(&plan.clone_directories()).err().map(|error| format!("{error:#}")));
    if failures.is_empty() {
        return own::remove(paths::FREEZE);
    }
    Err(anyhow!("{}", failures.join("; ")).context("left to the next run"))
}
