//! The interface of every engine.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;
use serde::Serialize;

use crate::frozen::{Skipped, View};
use crate::values::RunId;

/// Writes and reads one repository.
pub trait Engine {
    /// Whether there is a repository. Fails if that cannot be determined, or if it is damaged;
    /// changes nothing.
    fn exists(&self) -> Result<bool>;
    /// Fails if the location of a new repository is a directory with other files; changes nothing.
    fn ensure_vacant(&self) -> Result<()>;
    /// Creates the repository if there is none; true if it was created.
    fn init(&self) -> Result<bool>;
    /// Opens it. Fails if it is missing, damaged or has another password.
    fn probe(&self) -> Result<()>;
    /// Waits until no other process holds the write lock; fails after `patience`. Readers do not
    /// count.
    fn wait_for_lock(&self, patience: Duration) -> Result<()>;
    /// Repairs what a killed process has left incomplete; files that are old at the time `now` are
    /// removed. Can take long: never call it in the window.
    fn recover(&self, now: Timestamp) -> Result<()>;
    /// Stores `request`'s files as one snapshot.
    fn store(&self, request: StoreRequest<'_>, progress: &dyn Progress) -> Result<Stored>;
    /// Every snapshot that this program has created.
    fn snapshots(&self) -> Result<Vec<Snapshot>>;
    /// Extracts `paths` (everything if there are none) below `target`, with the directories above
    /// them and with owners, modes and times. May panic: call it in a child process.
    fn extract(&self, snapshot: &str, target: &Path, paths: &[PathBuf]) -> Result<()>;
    /// Calls `each` with every path in a snapshot, and with its size unless it is a directory.
    fn list(&self, snapshot: &str, each: &mut dyn FnMut(&Path, Option<u64>)) -> Result<()>;
    /// How many names in a snapshot have the device and inode number of a file with other content:
    /// restic would extract them as links to that file. `None` if the engine cannot determine it.
    fn count_false_links(&self, snapshot: &str) -> Result<Option<u64>>;
    /// Checks the structure, with `data` also every byte. Fails with the errors found.
    fn check(&self, data: bool) -> Result<()>;
    /// A function that reads small files out of snapshots.
    fn reader(&self) -> Result<Reader<'_>>;
    /// Removes snapshots, but not the data that others share. Waits `patience` for the lock.
    fn forget(&self, snapshots: &[String], patience: Duration) -> Result<()>;
    /// Every key.
    fn keys(&self) -> Result<Vec<Key>>;
    /// Adds a key with the password in a file.
    fn add_key(&self, password_file: &Path) -> Result<()>;
    /// Removes a key by its whole ID. Fails for the key in use.
    fn remove_key(&self, id: &str) -> Result<()>;
    /// Removes the data that no snapshot needs any more. Data that another process may still use is
    /// kept for a day. Waits `patience` for the lock.
    fn prune(&self, patience: Duration) -> Result<()>;
}

/// A request to store files as one snapshot.
pub struct StoreRequest<'a> {
    /// The run that it belongs to.
    pub run: &'a RunId,
    /// The part's name.
    pub part: &'a str,
    /// The host whose files are stored.
    pub host: &'a str,
    /// The parts whose newest snapshots of this host are parents: files that are unchanged since
    /// then are not read again.
    pub parents: &'a [&'a str],
    /// The files.
    pub files: Files<'a>,
    /// Whether a path that cannot be read fails the request.
    pub tolerance: Tolerance,
    /// How long to wait for the lock.
    pub patience: Duration,
}

/// How long a process that changes the repository waits for another that changes it.
pub mod patience {
    use std::time::Duration;

    /// For a backup while GitLab is up: a prune in progress, however long, must not prevent it.
    pub const LONG: Duration = Duration::from_secs(12 * 3600);
    /// For work while GitLab is down.
    pub const SHORT: Duration = Duration::from_secs(3);
    /// For work that can be done at any other time.
    pub const NONE: Duration = Duration::ZERO;
}

/// The files to store.
pub enum Files<'a> {
    /// As they are while they are read.
    Live {
        /// Absolute paths; each must exist.
        paths: &'a [PathBuf],
        /// Globs of the paths to leave out.
        exclude: &'a [String],
    },
    /// As they were in the window.
    Frozen(View),
}

impl Files<'_> {
    /// The paths under which they are stored.
    pub fn paths(&self) -> Vec<PathBuf> {
        match self {
            Self::Live { paths, .. } => paths.to_vec(),
            Self::Frozen(view) => view.paths(),
        }
    }
}

/// The consequence of a path that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tolerance {
    /// The store fails and leaves no snapshot.
    None,
    /// GitLab is up and files come and go: the path is left out and reported.
    Changing,
}

/// The result of storing files.
#[derive(Debug)]
pub struct Stored {
    /// The snapshot's ID.
    pub snapshot: String,
    /// The hash over content and metadata.
    pub tree: String,
    /// Files in it.
    pub files: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Bytes that the repository did not have yet.
    pub bytes_added: u64,
    /// Paths that could not be read; empty with [`Tolerance::None`].
    pub skipped: Vec<Skipped>,
    /// What no backup can hold of live files. Of a frozen view this is already known from the walk.
    pub left_out: Vec<Skipped>,
}

/// A snapshot that this program has created.
#[derive(Debug)]
pub struct Snapshot {
    /// Its ID.
    pub id: String,
    /// The hash over content and metadata.
    pub tree: String,
    /// When it was created.
    pub time: Timestamp,
    /// The host whose files it has.
    pub host: String,
    /// The run that it belongs to.
    pub run: RunId,
    /// The part's name.
    pub part: String,
}

/// Reads a small file, by the snapshot's ID and the path in the snapshot.
pub type Reader<'a> = Box<dyn Fn(&str, &Path) -> Result<Vec<u8>> + 'a>;

/// One of the passwords that open the repository; its JSON is stable.
#[derive(Debug, Clone, Serialize)]
pub struct Key {
    /// Its ID.
    pub id: String,
    /// Whether it is the one in use.
    pub current: bool,
    /// The user who created it.
    pub user: String,
    /// The host on which it was created.
    pub host: String,
    /// When it was created, as the engine writes it; empty if unknown.
    pub created: String,
}

/// Is notified of the progress of a store.
pub trait Progress: Send + Sync {
    /// Bytes read so far; may be called often.
    fn bytes(&self, done: u64);
}
