//! Checks that network and FUSE file systems in or above the configured paths answer. If their
//! server is unreachable, every process that touches them hangs.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::anyhow;

use crate::config::Config;
use crate::finding::Finding;
use crate::host::mounts::{self, Mount};

/// The subject of the findings of this check.
pub(super) const WHAT: &str = "mounts";
/// How long a server has to answer. One across a network that has been idle for hours needs a
/// second or two.
const PATIENCE: Duration = Duration::from_secs(10);
/// The types of file systems that depend on a server.
const SERVED: [&str; 9] = ["fuse", "nfs", "nfs4", "cifs", "smb3", "ceph", "glusterfs", "9p", "afs"];

/// One error for each mounted file system whose server does not answer.
pub fn findings(config: &Config) -> Vec<Finding> {
    let concerns = |mount: &Mount| {
        let is_near =
            |path: &Path| path.starts_with(&mount.target) || mount.target.starts_with(path);
        SERVED.contains(&mount.kind.as_str()) && config.files.places().any(|path| is_near(path))
    };
    let mounts = mounts::seen().unwrap_or_default();
    let asked: Vec<_> = mounts
        .into_iter()
        .filter(concerns)
        .map(|mount| (call_statvfs(mount.target.clone()), mount))
        .collect();
    let deadline = Instant::now() + PATIENCE;
    let silent = asked.into_iter().filter(|(answer, _)| {
        let left = deadline.saturating_duration_since(Instant::now());
        answer.recv_timeout(left) == Err(mpsc::RecvTimeoutError::Timeout)
    });
    let words = |mount: Mount| {
        anyhow!(
            "{} is a file system of type {} whose server has not answered for {} s: mount it \
             again, or unmount it ('umount -l')",
            mount.target.display(),
            mount.kind,
            PATIENCE.as_secs()
        )
    };
    silent.map(|(_, mount)| Finding::of(WHAT, Err(words(mount)))).collect()
}

/// Calls statvfs(3) in a new thread, because the call can hang for ever. The receiver gets a
/// message when it returns, even with an error: the server has answered.
fn call_statvfs(target: PathBuf) -> mpsc::Receiver<()> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let _ = rustix::fs::statvfs(&target);
        let _ = sender.send(());
    });
    receiver
}

/// Whether `findings` has an error of this check. If so, nothing may touch the files: it would
/// hang.
pub fn is_among(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| finding.what == WHAT)
}
