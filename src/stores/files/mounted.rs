//! Whether the file systems of others that are mounted in what is saved answer: one whose server is
//! gone keeps whoever looks at it waiting for ever.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::anyhow;

use crate::config::Config;
use crate::finding::Finding;
use crate::host::mounts::{self, Mount};

/// What its findings are about.
pub(super) const WHAT: &str = "mounts";
/// A server across a network that is asked for the first time in hours takes a second or two.
const PATIENCE: Duration = Duration::from_secs(10);
/// Kinds that have a server.
const SERVED: [&str; 9] = ["fuse", "nfs", "nfs4", "cifs", "smb3", "ceph", "glusterfs", "9p", "afs"];

/// One finding for each that does not answer.
pub fn silent(config: &Config) -> Vec<Finding> {
    let concerns = |mount: &Mount| {
        let is_near =
            |path: &Path| path.starts_with(&mount.target) || mount.target.starts_with(path);
        SERVED.contains(&mount.kind.as_str()) && config.files.places().any(|path| is_near(path))
    };
    let mounts = mounts::seen().unwrap_or_default();
    let asked: Vec<_> = mounts
        .into_iter()
        .filter(concerns)
        .map(|mount| (ask(mount.target.clone()), mount))
        .collect();
    let deadline = Instant::now() + PATIENCE;
    let silent = asked.into_iter().filter(|(answer, _)| {
        let left = deadline.saturating_duration_since(Instant::now());
        answer.recv_timeout(left) == Err(mpsc::RecvTimeoutError::Timeout)
    });
    let words = |mount: Mount| {
        anyhow!(
            "{} is a file system of kind {} whose server does not answer (for {} s): mount it anew, or unmount it ('umount -l')",
            mount.target.display(),
            mount.kind,
            PATIENCE.as_secs()
        )
    };
    silent.map(|(_, mount)| Finding::of(WHAT, Err(words(mount)))).collect()
}

/// Asks from a thread of its own, which ends with the process if not before. An error is an answer,
/// too.
fn ask(target: PathBuf) -> mpsc::Receiver<()> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let _ = rustix::fs::statvfs(&target);
        let _ = sender.send(());
    });
    receiver
}

/// Whether one of `findings` is such a one: then nothing may look at the files.
pub fn is_among(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| finding.what == WHAT)
}
