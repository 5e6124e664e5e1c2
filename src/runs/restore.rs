//! The state of a restore that its command, its executor and its units share: the request, the
//! plan, and the journal of the replacement.
//!
//! A restore first extracts all new data beside the live data. Then it renames: the live data
//! aside, the new data into place. The [`RestoreJournal`] lists these renames, so that an
//! interrupted restore can be undone or repeated. Once all new data is in place, GitLab may have
//! run with it: from then on, a restore is only undone by request.

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use jiff::Timestamp;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::host::beneath::KnownDirectory;
use crate::host::identity::Account;
use crate::host::{durable, own};
use crate::paths::{self, RootDirectory};
use crate::systemd::Paused;
use crate::values::RunId;

use super::record::{read_json, write_json};
use super::{Database, Manifest, Part};

/// The maximum age of a request.
const LONGEST: Duration = Duration::from_secs(120);

/// The request of `gitlab-backup restore`, without which its units do not start.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Request {
    /// The run to restore; none to undo an unfinished restore.
    pub run: Option<RunId>,
    /// These parts only: `postgresql`, `redis`, `files`, `config`; empty for all but `config`.
    pub only: Vec<String>,
    /// This path only.
    pub path: Option<PathBuf>,
    /// Whether to restore configuration and secrets too.
    pub with_config: bool,
    /// Whether to restore into another version or edition of GitLab.
    pub allow_version_mismatch: bool,
    /// The Redis instances that are not restored.
    pub skip_redis: Vec<String>,
    /// GitLab is stopped before everything is extracted and loaded, and not after it.
    #[serde(default)]
    pub stop_first: bool,
}

/// The lock on requests for a restore. Released when this value is dropped or the process ends.
pub struct RestoreLock(#[expect(dead_code, reason = "it is held")] File);

impl RestoreLock {
    /// Takes the lock; none if another process holds it.
    pub fn take(root: &RootDirectory) -> Result<Option<Self>> {
        let path = &root.at(paths::RESTORE_LOCK);
        own::make(path.parent().context("a file has a directory")?)?;
        let file =
            own::closed(path).with_context(|| format!("cannot create {}", path.display()))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self(file))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
        }
    }
}

impl Request {
    /// Writes the request for the executor.
    pub fn leave(&self, root: &RootDirectory, _: &RestoreLock) -> Result<()> {
        write_json(&root.at(paths::RESTORE_REQUEST), self)
    }

    /// Removes a request that no executor has picked up, so that it is not executed later.
    pub fn withdraw(root: &RootDirectory, _: &RestoreLock) -> Result<()> {
        own::remove(root.at(paths::RESTORE_REQUEST))
    }

    /// Picks up the request, for one restore.
    ///
    /// # Errors
    /// If there is none: a restore never starts without a request.
    pub fn take(root: &RootDirectory) -> Result<Self> {
        let path = root.at(paths::RESTORE_REQUEST);
        let request = read_json(&path)?
            .context("no restore was requested: start one with 'gitlab-backup restore'")?;
        // The command starts the executor right after the request, unless it was killed.
        if own::age(&path)? > LONGEST {
            own::remove(path)?;
            bail!(
                "the request is too old: the command that wrote it was killed. Run 'gitlab-backup \
                 restore' again"
            );
        }
        durable::rename(&path, &root.at(paths::RESTORE_ASKED))?;
        Ok(request)
    }

    /// The request of the running restore.
    pub fn asked(root: &RootDirectory) -> Result<Self> {
        read_json(&root.at(paths::RESTORE_ASKED))?
            .context("no restore is going on: this helper is started by its unit only")
    }

    /// Checks that the run has the requested parts, and the Redis instances to skip.
    ///
    /// # Errors
    /// With the first name that the run does not have.
    pub fn check_names(&self, manifest: &Manifest) -> Result<()> {
        let servers: Vec<&str> = manifest
            .versions
            .iter()
            .filter_map(|component| component.name.strip_prefix("redis-"))
            .collect();
        if let Some(unknown) = self.skip_redis.iter().find(|name| !servers.contains(&name.as_str()))
        {
            bail!(
                "run {} has no Redis '{unknown}' that --skip-redis could skip: it has {}",
                manifest.id,
                listed(&servers)
            );
        }
        let parts: Vec<&str> = manifest.parts.iter().map(|part| part.name.as_str()).collect();
        // The configuration is in part `files`.
        let part = |name: &str| if name == "config" { "files" } else { name }.to_owned();
        if let Some(unknown) = self.only.iter().find(|name| !parts.contains(&part(name).as_str())) {
            bail!("run {} has no part '{unknown}': it has {}", manifest.id, listed(&parts));
        }
        Ok(())
    }

    /// Whether `part` is requested.
    pub fn wants(&self, part: &str) -> bool {
        let named = self.only.iter().any(|name| name == part);
        match (&self.path, part) {
            (None, "config") => self.with_config || named,
            (None, _) => self.only.is_empty() || named,
            // A requested path is restored even if it holds configuration.
            (Some(_), part) => matches!(part, "files" | "config"),
        }
    }
}

fn listed(names: &[&str]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// The plan of a restore, which preflight makes and the other units execute.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RestorePlan {
    /// The run; none for an undo.
    pub run: Option<RunId>,
    /// The part with the dumps, if any database is restored.
    pub postgresql: Option<Part>,
    /// The databases, with their temporary names.
    pub databases: Vec<StagedDatabase>,
    /// The part with the RDB files, if any instance is restored.
    pub redis_part: Option<Part>,
    /// The instances.
    pub redis: Vec<StagedRedis>,
    /// The snapshot of the files, if any is restored.
    pub files: Option<String>,
    /// The paths to restore, by file system.
    pub layouts: Vec<StagingLayout>,
    /// Configuration that is only extracted for comparison.
    pub beside: Option<Beside>,
}

impl RestorePlan {
    /// A plan without anything yet; without a run, it only undoes.
    pub fn of(run: Option<RunId>) -> Self {
        Self {
            run,
            postgresql: None,
            databases: Vec::new(),
            redis_part: None,
            redis: Vec::new(),
            files: None,
            layouts: Vec::new(),
            beside: None,
        }
    }

    /// Whether there is nothing to restore.
    pub fn is_empty(&self) -> bool {
        self.databases.is_empty()
            && self.redis.is_empty()
            && self.layouts.is_empty()
            && self.beside.is_none()
    }
}

/// A database of the run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StagedDatabase {
    /// The database as the run has it.
    pub database: Database,
    /// Its name until it is renamed into place.
    pub staged: String,
    /// The name of the replaced database until that is removed.
    pub replaced: String,
    /// The OIDs of both databases; none before they are renamed, and in the journal of an older
    /// version of this program.
    #[serde(default)]
    pub numbers: Option<Numbers>,
}

/// The OIDs of two databases, which identify them even if they are renamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbers {
    /// The OID of the new database.
    pub new: u32,
    /// The OID of the replaced database; none if there was none.
    pub old: Option<u32>,
}

/// A Redis of the run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StagedRedis {
    /// `[[redis]] name`.
    pub name: String,
    /// The unit of the server.
    pub unit: String,
    /// The account of the server, which owns its directory.
    pub account: Account,
    /// The directory of its files.
    pub directory: PathBuf,
    /// The name of its RDB file.
    pub file: String,
    /// With `appendonly yes`: the names of the append-only directory (since 7.0) and file, which
    /// the server would load instead.
    pub append_only: Option<(Option<String>, String)>,
    /// The two directories of the restore.
    pub places: Places,
}

/// Two directories that a restore creates on the file system of the data that it replaces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Places {
    /// For the new data, until it is renamed into place.
    pub staged: KnownDirectory,
    /// For the replaced data, until the restore is complete.
    pub aside: KnownDirectory,
}

impl Places {
    /// Chooses the names, in `directory`. Creates nothing.
    pub fn planned(directory: &Path) -> Result<Self> {
        Ok(Self {
            staged: KnownDirectory::planned(directory, ".gitlab-backup-restore-")?,
            aside: KnownDirectory::planned(directory, ".gitlab-backup-replaced-")?,
        })
    }

    /// Creates both directories.
    pub fn make(&mut self) -> Result<()> {
        self.staged.make()?;
        self.aside.make().map(drop)
    }
}

/// The paths of one file system that are restored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StagingLayout {
    /// The two directories on that file system.
    pub places: Places,
    /// The directory for files that the run does not contain. They are kept permanently.
    pub kept: PathBuf,
    /// The paths, as they were on the host.
    pub roots: Vec<Root>,
}

/// Configuration that is extracted for comparison, to a directory that only root can access.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Beside {
    /// The directory.
    pub directory: PathBuf,
    /// The paths, as they were on the host.
    pub roots: Vec<PathBuf>,
}

/// One path to restore.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Root {
    /// The path.
    pub path: PathBuf,
    /// Whether the path is a mount point: then its entries are renamed instead.
    pub mount: bool,
}

/// The renames at one path: the live data aside, the new data into place. Can be undone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// The live path.
    #[serde(with = "crate::values::raw_path")]
    pub live: PathBuf,
    /// The path of the data inside of both directories.
    #[serde(with = "crate::values::raw_path")]
    pub inside: PathBuf,
    /// Whether there is new data for the path.
    pub new: bool,
    /// Whether there is live data at the path.
    pub old: bool,
}

/// The renames on one file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moves {
    /// The two directories.
    pub places: Places,
    /// The account that can do the renames; none for root.
    pub account: Option<Account>,
    /// The renames.
    pub steps: Vec<Move>,
}

/// The progress of a restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// No live data was changed.
    Staging,
    /// Some of the live data is new, some old: GitLab must not run.
    Switching,
    /// All live data is new, and GitLab may have run with it. The replaced data still exists.
    Switched,
    /// The replaced data is being removed: the restore cannot be undone any more.
    Finishing,
}

impl State {
    /// Whether all live data is the restored data.
    pub fn has_taken_place(self) -> bool {
        matches!(self, Self::Switched | Self::Finishing)
    }
}

/// The journal of a restore that has to be finished or undone.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RestoreJournal {
    /// The progress.
    pub state: State,
    /// When the restore started.
    pub started: Timestamp,
    /// When all new data was in place.
    #[serde(default)]
    pub switched: Option<Timestamp>,
    /// Whether an undo was requested. As long as it is, the replaced data is not removed.
    #[serde(default)]
    pub undo: bool,
    /// The plan.
    pub plan: RestorePlan,
    /// The paused units; the record in /run is lost with a reboot.
    pub paused: Vec<Paused>,
    /// The renames of files.
    pub moves: Vec<Moves>,
    /// The renames of Redis' files.
    pub redis_moves: Vec<Moves>,
}

impl RestoreJournal {
    /// Reads the journal; none if no restore is unfinished.
    pub fn load(root: &RootDirectory) -> Result<Option<Self>> {
        read_json(&root.at(paths::RESTORE_JOURNAL))
    }

    /// Writes the journal, and syncs it.
    pub fn save(&self, root: &RootDirectory) -> Result<()> {
        write_json(&root.at(paths::RESTORE_JOURNAL), self)
    }

    /// Records the request for an undo, or cancels it. Does nothing if there is no journal.
    ///
    /// # Errors
    /// If an undo is requested and the replaced data is already being removed.
    pub fn request_undo(root: &RootDirectory, undo: bool) -> Result<()> {
        let Some(mut journal) = Self::load(root)? else { return Ok(()) };
        if undo {
            journal.ensure_undoable()?;
        }
        if journal.undo == undo {
            return Ok(());
        }
        journal.undo = undo;
        journal.save(root)
    }

    /// Checks that the restore can be undone.
    ///
    /// # Errors
    /// If the replaced data is already being removed.
    pub fn ensure_undoable(&self) -> Result<()> {
        ensure!(
            self.state != State::Finishing,
            "the old data is already being removed and cannot be put back: the next run or restore \
             finishes the removal"
        );
        Ok(())
    }

    /// Removes the journal: the restore is finished or undone.
    pub fn clear(root: &RootDirectory) -> Result<()> {
        own::remove(root.at(paths::RESTORE_JOURNAL))
    }

    /// Why GitLab must not run: if the restore is half done, or the journal cannot be read.
    pub fn half_way(root: &RootDirectory) -> Option<String> {
        let words = "a restore ended half way: GitLab stays down until 'gitlab-backup restore' is \
                     run again, or 'gitlab-backup restore --undo' puts the old data back";
        match Self::load(root) {
            Ok(Some(Self { state: State::Switching, .. })) => Some(words.to_owned()),
            Ok(_) => None,
            Err(error) => Some(format!(
                "cannot tell whether a restore ended half way, so GitLab is not started: {error:#}"
            )),
        }
    }
}

/// Replaced data that could not be removed when a restore finished.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Leftover {
    /// The database or directory.
    pub thing: Thing,
    /// Why it was not removed.
    pub why: String,
    /// It contains data that exists nowhere else, so that only the admin may remove it.
    pub by_hand: bool,
}

/// A replaced database or directory.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Thing {
    /// A database.
    Database {
        /// Its name.
        name: String,
        /// Its OID; none in the journal of an older version of this program.
        number: Option<u32>,
    },
    /// A directory.
    Directory {
        /// The directory.
        held: KnownDirectory,
        /// The account that can remove it; none for root.
        account: Option<Account>,
    },
}

impl fmt::Display for Leftover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.thing {
            Thing::Database { name, .. } => write!(f, "database '{name}'")?,
            Thing::Directory { held, .. } => write!(f, "{}", held.path.display())?,
        }
        let fate = if self.by_hand {
            "copy what you need from it, then remove it"
        } else {
            "the next run or restore removes it"
        };
        write!(f, " is left over from a restore ({}): {fate}", self.why)
    }
}

impl Leftover {
    /// Reads the list.
    pub fn load(root: &RootDirectory) -> Result<Vec<Self>> {
        // Nothing depends on this list, so a damaged one is only a warning.
        match read_json(&root.at(paths::RESTORE_LEFT)) {
            Ok(all) => Ok(all.unwrap_or_default()),
            Err(error) => {
                tracing::warn!("{error:#}; the list of data left over from restores is lost");
                Ok(Vec::new())
            }
        }
    }

    /// Replaces the list.
    pub fn save(root: &RootDirectory, all: &[Self]) -> Result<()> {
        if all.is_empty() {
            own::remove(root.at(paths::RESTORE_LEFT))
        } else {
            write_json(&root.at(paths::RESTORE_LEFT), &all)
        }
    }
}

/// Whether the last step of a restore is due.
pub fn is_to_finish(root: &RootDirectory) -> bool {
    let due = || -> Result<bool> {
        Ok(RestoreJournal::load(root)?
            .is_some_and(|journal| journal.state != State::Switching && !journal.undo)
            || !Leftover::load(root)?.is_empty())
    };
    due().unwrap_or(false)
}

/// A line for each restore whose replaced data still exists, with what happens to that.
pub fn left(root: &RootDirectory) -> Result<Vec<String>> {
    let mut lines: Vec<String> = Leftover::load(root)?.iter().map(ToString::to_string).collect();
    let Some(journal) =
        RestoreJournal::load(root)?.filter(|journal| journal.state != State::Switching)
    else {
        return Ok(lines);
    };
    if journal.state == State::Staging {
        lines.push(
            "a restore was interrupted while it extracted data, and replaced nothing: the next run \
             or \
             restore removes the extracted data"
                .to_owned(),
        );
        return Ok(lines);
    }
    let aside = journal.aside();
    if !aside.is_empty() {
        let run = journal.plan.run.as_ref().map_or("a run", RunId::as_str);
        if journal.undo {
            lines.push(format!(
                "run {run} is restored, and the old data is wanted back, which has failed ({}): \
                 'gitlab-backup restore --undo' tries again, 'gitlab-backup restore \
                 --keep' keeps what was restored",
                aside.join(", ")
            ));
            return Ok(lines);
        }
        lines.push(format!(
            "run {run} is restored, and the old data is still beside it ({}): it is removed as \
             soon as GitLab answers, or by the first run after that{}",
            aside.join(", "),
            if journal.state == State::Switched {
                "; 'gitlab-backup restore --undo' puts it back"
            } else {
                ""
            }
        ));
    }
    Ok(lines)
}

impl RestoreJournal {
    /// The names of the replaced databases and directories.
    fn aside(&self) -> Vec<String> {
        let databases =
            self.plan.databases.iter().map(|database| format!("database '{}'", database.replaced));
        let places = self
            .plan
            .layouts
            .iter()
            .map(|layout| &layout.places)
            .chain(self.plan.redis.iter().map(|redis| &redis.places));
        databases.chain(places.map(|places| places.aside.path.display().to_string())).collect()
    }
}
