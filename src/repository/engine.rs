//! What every engine can do.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;
use serde::Serialize;

use crate::frozen::{Skipped, View};
use crate::values::RunId;

/// Writes and reads one repository.
pub trait Engine {
    /// Whether there is one. Fails if that cannot be told, or if it is damaged; changes nothing.
    fn is_there(&self) -> Result<bool>;
    /// Fails if something else is where it is to be made, as far as that can be told; changes
    /// nothing.
    fn ensure_vacant(&self) -> Result<()>;
    /// Makes the repository if there is none; true if it was made.
    fn init(&self) -> Result<bool>;
    /// Opens it. Fails if it is missing, damaged or has another password.
    fn probe(&self) -> Result<()>;
    /// Returns as soon as no other process changes it, and fails after `patience`. Readers are
    /// nobody's concern.
    fn turn(&self, patience: Duration) -> Result<()>;
    /// Makes good what a process left that was killed in it. Takes its time: not for the window.
    fn recover(&self) -> Result<()>;
    /// Stores `request`'s files as one snapshot.
    fn store(&self, request: StoreRequest<'_>, progress: &dyn Progress) -> Result<Stored>;
    /// Every snapshot that is ours.
    fn snapshots(&self) -> Result<Vec<Snapshot>>;
    /// Lays `paths` (everything if there are none) out below `target`, with the directories above
    /// them, owners, modes and times as they were. May panic: a process of its own is needed.
    fn extract(&self, snapshot: &str, target: &Path, paths: &[PathBuf]) -> Result<()>;
    /// Tells every path in a snapshot, and its bytes unless it is a directory.
    fn list(&self, snapshot: &str, each: &mut dyn FnMut(&Path, Option<u64>)) -> Result<()>;
    /// How many names in a snapshot have the numbers of another file, of other content: restic
    /// would lay them out as that one. None where the engine cannot tell.
    fn confused(&self, snapshot: &str) -> Result<Option<u64>>;
    /// Checks the structure, and every byte with `data`. Fails with what is wrong.
    fn check(&self, data: bool) -> Result<()>;
    /// What reads small files out of snapshots.
    fn reader(&self) -> Result<Reader<'_>>;
    /// Removes snapshots, not the data that they share with others. Waits so long for its turn.
    fn forget(&self, snapshots: &[String], patience: Duration) -> Result<()>;
    /// Every key.
    fn keys(&self) -> Result<Vec<Key>>;
    /// Adds a key with the password in a file.
    fn add_key(&self, password_file: &Path) -> Result<()>;
    /// Removes a key, by its whole id. Fails for the one in use.
    fn remove_key(&self, id: &str) -> Result<()>;
    /// Removes the data that no snapshot needs any more. What another process may still be using is
    /// kept for a day. Waits so long for its turn.
    fn prune(&self, patience: Duration) -> Result<()>;
}

/// What to store.
pub struct StoreRequest<'a> {
    /// The run that it belongs to.
    pub run: &'a RunId,
    /// The part's name.
    pub part: &'a str,
    /// The host that the snapshot is of.
    pub host: &'a str,
    /// The parts whose newest snapshots of this host are looked into for content that need not be
    /// read again.
    pub parents: &'a [&'a str],
    /// What to store.
    pub files: Files<'a>,
    /// What a path that cannot be read means.
    pub tolerance: Tolerance,
    /// How long to wait for the turn.
    pub patience: Duration,
}

/// How long a process that changes the repository waits for another that does.
pub mod patience {
    use std::time::Duration;

    /// GitLab is up: a prune that somebody started takes its time, and is no reason for no backup.
    pub const LONG: Duration = Duration::from_secs(12 * 3600);
    /// GitLab is down.
    pub const SHORT: Duration = Duration::from_secs(3);
    /// What can be done at any other time.
    pub const NONE: Duration = Duration::ZERO;
}

/// The files to store.
pub enum Files<'a> {
    /// As they are while they are read.
    Live {
        /// Absolute; each must be there.
        paths: &'a [PathBuf],
        /// Globs of what is left out.
        exclude: &'a [String],
    },
    /// As they were.
    Frozen(View),
}

impl Files<'_> {
    /// What they are called.
    pub fn paths(&self) -> Vec<PathBuf> {
        match self {
            Self::Live { paths, .. } => paths.to_vec(),
            Self::Frozen(view) => view.paths(),
        }
    }
}

/// What a path that cannot be read means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tolerance {
    /// The store fails and leaves no snapshot.
    None,
    /// GitLab is up and files come and go: it is reported, and left out.
    Changing,
}

/// What was stored.
#[derive(Debug)]
pub struct Stored {
    /// The snapshot's id.
    pub snapshot: String,
    /// The hash over content and metadata.
    pub tree: String,
    /// Files in it.
    pub files: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Bytes that the repository did not have yet.
    pub bytes_added: u64,
    /// What could not be read; empty with [`Tolerance::None`].
    pub skipped: Vec<Skipped>,
    /// What no backup can hold, of files that were looked at for this; of others it is known from
    /// the look at them.
    pub left_out: Vec<Skipped>,
}

/// A snapshot of ours.
#[derive(Debug)]
pub struct Snapshot {
    /// Its id.
    pub id: String,
    /// The hash over content and metadata.
    pub tree: String,
    /// When it was made.
    pub time: Timestamp,
    /// The host that it is of.
    pub host: String,
    /// The run that it belongs to.
    pub run: RunId,
    /// The part's name.
    pub part: String,
}

/// Reads a small file, by the snapshot's id and its path there.
pub type Reader<'a> = Box<dyn Fn(&str, &Path) -> Result<Vec<u8>> + 'a>;

/// One of the passwords that open the repository; its JSON is stable.
#[derive(Debug, Clone, Serialize)]
pub struct Key {
    /// Its id.
    pub id: String,
    /// It is the one in use.
    pub current: bool,
    /// Who made it.
    pub user: String,
    /// Where.
    pub host: String,
    /// When, as the engine writes it; empty if it did not.
    pub created: String,
}

/// Hears how far a store is.
pub trait Progress: Send + Sync {
    /// Bytes read so far; may be called often.
    fn bytes(&self, done: u64);
}
