//! A restore, as its command, its executor and its units know it: what is asked for, what is
//! planned, and how far the replacement is.
//!
//! Nothing live is changed before everything new lies beside it. Then renames put the new in place
//! and the old aside; the [`Journal`] says which, so that a restore that dies half way can be put
//! back or done again. What has taken place is only ever finished: GitLab may have run with it. It
//! is put back if somebody asks for it, and never by the way.

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use jiff::Timestamp;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::host::beneath::Held;
use crate::host::identity::Account;
use crate::host::{durable, own};
use crate::paths::{self, RootDirectory};
use crate::systemd::Paused;
use crate::values::RunId;

use super::record::{read_json, write_json};
use super::{Database, Manifest, Part};

/// How old a request may be.
const LONGEST: Duration = Duration::from_secs(120);

/// What `gitlab-backup restore` asks for; its units start only with one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Request {
    /// The run; none puts back what an unfinished restore has replaced.
    pub run: Option<RunId>,
    /// These parts only: `postgresql`, `redis`, `files`, `config`; empty for all but `config`.
    pub only: Vec<String>,
    /// This path only.
    pub path: Option<PathBuf>,
    /// Put configuration and secrets in place too.
    pub with_config: bool,
    /// Restore into another version or edition of GitLab.
    pub allow_version_mismatch: bool,
    /// Redis instances that are left as they are.
    pub skip_redis: Vec<String>,
}

/// The right to ask for a restore. Ends with this value, or the process.
pub struct Turn(#[expect(dead_code, reason = "it is held")] File);

impl Turn {
    /// None if somebody else has it.
    pub fn take() -> Result<Option<Self>> {
        let path = Path::new(paths::RESTORE_TURN);
        own::make(path.parent().context("a file has a directory")?)?;
        let file = own::closed(path).with_context(|| format!("cannot make {}", path.display()))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self(file))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
        }
    }
}

impl Request {
    /// Leaves the request for the executor, in the caller's turn.
    pub fn leave(&self, root: &RootDirectory, _: &Turn) -> Result<()> {
        write_json(&root.at(paths::RESTORE_REQUEST), self)
    }

    /// Takes back a request that nobody has taken: nothing is to be restored by the way, later.
    pub fn withdraw(root: &RootDirectory, _: &Turn) -> Result<()> {
        own::remove(root.at(paths::RESTORE_REQUEST))
    }

    /// Takes the request: each is good for one restore.
    ///
    /// # Errors
    /// If there is none: a restore is never started by the way.
    pub fn take(root: &RootDirectory) -> Result<Self> {
        let path = root.at(paths::RESTORE_REQUEST);
        let request = read_json(&path)?
            .context("nothing is asked for: a restore is started by 'gitlab-backup restore'")?;
        // Who asked has started the executor at once, or died before.
        if own::age(&path)? > LONGEST {
            own::remove(path)?;
            bail!(
                "what was asked for was asked for long ago, by a command that did not come to its end: ask again by 'gitlab-backup restore'"
            );
        }
        durable::rename(&path, &root.at(paths::RESTORE_ASKED))?;
        Ok(request)
    }

    /// What the restore that goes on was asked for.
    pub fn asked(root: &RootDirectory) -> Result<Self> {
        read_json(&root.at(paths::RESTORE_ASKED))?
            .context("no restore is going on: this helper is started by its unit only")
    }

    /// Checks every name that selects or protects something against what the run has.
    ///
    /// # Errors
    /// With the first that the run does not have.
    pub fn known(&self, manifest: &Manifest) -> Result<()> {
        let servers: Vec<&str> = manifest
            .versions
            .iter()
            .filter_map(|component| component.name.strip_prefix("redis-"))
            .collect();
        if let Some(unknown) = self.skip_redis.iter().find(|name| !servers.contains(&name.as_str()))
        {
            bail!(
                "run {} has no Redis '{unknown}' that --skip-redis could spare: it has {}",
                manifest.id,
                listed(&servers)
            );
        }
        let parts: Vec<&str> = manifest.parts.iter().map(|part| part.name.as_str()).collect();
        // Configuration is among the files.
        let part = |name: &str| if name == "config" { "files" } else { name }.to_owned();
        if let Some(unknown) = self.only.iter().find(|name| !parts.contains(&part(name).as_str())) {
            bail!("run {} has no such part as '{unknown}': it has {}", manifest.id, listed(&parts));
        }
        Ok(())
    }

    /// Whether `part` is asked for.
    pub fn wants(&self, part: &str) -> bool {
        let named = self.only.iter().any(|name| name == part);
        match (&self.path, part) {
            (None, "config") => self.with_config || named,
            (None, _) => self.only.is_empty() || named,
            // A path that is named is put in place, whatever it is.
            (Some(_), part) => matches!(part, "files" | "config"),
        }
    }
}

fn listed(names: &[&str]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// What preflight found out and the other units do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RestorePlan {
    /// The run; none to put back only.
    pub run: Option<RunId>,
    /// The part with the dumps, if any database is restored.
    pub postgresql: Option<Part>,
    /// The databases, and their names while they are laid out and when they are aside.
    pub databases: Vec<StagedDatabase>,
    /// The part with the RDB files, if any instance is restored.
    pub redis_part: Option<Part>,
    /// The instances.
    pub redis: Vec<StagedRedis>,
    /// The snapshot of the files, if any is restored.
    pub files: Option<String>,
    /// What is laid out where, one for each file system.
    pub layouts: Vec<Layout>,
    /// Configuration that is only laid out for comparison.
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
    /// What the run says of it.
    pub database: Database,
    /// Its name until everything is there.
    pub staged: String,
    /// The name of the one that it replaces, until the restore is complete.
    pub replaced: String,
    /// Which ones they are; not known before they are exchanged, nor in a journal of an older
    /// version.
    #[serde(default)]
    pub numbers: Option<Numbers>,
}

/// PostgreSQL's own numbers (OIDs) of two databases: a name may have come to mean another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbers {
    /// Of the one that was laid out.
    pub new: u32,
    /// Of the one that it replaces; none if there was none.
    pub old: Option<u32>,
}

/// A Redis of the run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StagedRedis {
    /// `[[redis]] name`.
    pub name: String,
    /// The unit that runs it.
    pub unit: String,
    /// Whom its process runs as, and to whom its directory belongs.
    pub account: Account,
    /// Where it keeps its files.
    pub directory: PathBuf,
    /// Its RDB file's name.
    pub file: String,
    /// With `appendonly yes`: the names of its append-only directory (7.0 or newer) and file, from
    /// which it would start instead.
    pub append_only: Option<(Option<String>, String)>,
    /// Beside its files.
    pub places: Places,
}

/// Two directories that are made for a restore, on the file system of what is replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Places {
    /// Where the new is laid out.
    pub staged: Held,
    /// Where what was there before is kept until the restore is complete.
    pub aside: Held,
}

impl Places {
    /// In `directory`, not made yet.
    pub fn planned(directory: &Path) -> Result<Self> {
        Ok(Self {
            staged: Held::planned(directory, ".gitlab-backup-restore-")?,
            aside: Held::planned(directory, ".gitlab-backup-replaced-")?,
        })
    }

    /// Makes both.
    pub fn make(&mut self) -> Result<()> {
        self.staged.make()?;
        self.aside.make().map(drop)
    }
}

/// Paths of one snapshot that are laid out below one directory.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Layout {
    /// The directories that are made for it, on the file system where the paths belong.
    pub places: Places,
    /// Where what is not in the run is kept for good.
    pub kept: PathBuf,
    /// The paths, as they were on the host.
    pub roots: Vec<Root>,
}

/// Configuration that is laid out for comparison, in a directory that only root can reach.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Beside {
    /// The directory.
    pub directory: PathBuf,
    /// The paths, as they were on the host.
    pub roots: Vec<PathBuf>,
}

/// One path that is restored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Root {
    /// The path.
    pub path: PathBuf,
    /// It is a file system of its own and cannot be renamed: its entries are.
    pub mount: bool,
}

/// One rename of the replacement, there and back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// The place.
    #[serde(with = "crate::values::raw_path")]
    pub live: PathBuf,
    /// Where it lies beneath the two directories.
    #[serde(with = "crate::values::raw_path")]
    pub inside: PathBuf,
    /// Something comes there.
    pub new: bool,
    /// Something is there, and goes.
    pub old: bool,
}

/// The renames between a file system's places and what is live on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moves {
    /// The two directories.
    pub places: Places,
    /// Whose rights are enough; none: root's.
    pub account: Option<Account>,
    /// The renames.
    pub steps: Vec<Move>,
}

/// How far a restore is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Everything live is as it was.
    Staging,
    /// Some is new, some is old: GitLab must not run.
    Switching,
    /// Everything is new; the old is still there. GitLab may have run since.
    Switched,
    /// Everything is new, and the old is being removed: there is no way back.
    Finishing,
}

impl State {
    /// Whether what was restored is what GitLab runs with.
    pub fn has_taken_place(self) -> bool {
        matches!(self, Self::Switched | Self::Finishing)
    }
}

/// What is to be put back or finished, whoever died.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Journal {
    /// How far it is.
    pub state: State,
    /// When it was begun.
    pub started: Timestamp,
    /// When everything new was in place.
    #[serde(default)]
    pub switched: Option<Timestamp>,
    /// Somebody wants back what was there before: until it is, or he wants it no longer, nothing of
    /// that is removed.
    #[serde(default)]
    pub undo: bool,
    /// What is done.
    pub plan: RestorePlan,
    /// What ran before; /run forgets it with a reboot.
    pub paused: Vec<Paused>,
    /// The renames of files.
    pub moves: Vec<Moves>,
    /// The renames of Redis' files.
    pub redis_moves: Vec<Moves>,
}

impl Journal {
    /// The journal of a restore that is not finished; none if there is none.
    pub fn load(root: &RootDirectory) -> Result<Option<Self>> {
        read_json(&root.at(paths::RESTORE_JOURNAL))
    }

    /// Writes it, synced.
    pub fn save(&self, root: &RootDirectory) -> Result<()> {
        write_json(&root.at(paths::RESTORE_JOURNAL), self)
    }

    /// Writes down whether what was there before is wanted back; nothing, if nothing has taken
    /// place.
    ///
    /// # Errors
    /// If it is being removed.
    pub fn want_back(root: &RootDirectory, undo: bool) -> Result<()> {
        let Some(mut journal) = Self::load(root)? else { return Ok(()) };
        if undo {
            journal.ensure_whole()?;
        }
        if journal.undo == undo {
            return Ok(());
        }
        journal.undo = undo;
        journal.save(root)
    }

    /// Fails if what was there before is being removed.
    ///
    /// # Errors
    /// If so.
    pub fn ensure_whole(&self) -> Result<()> {
        ensure!(
            self.state != State::Finishing,
            "what was there before is being removed, and cannot be put back any more: the next run or restore goes on with that"
        );
        Ok(())
    }

    /// Nothing is left to put back or finish.
    pub fn clear(root: &RootDirectory) -> Result<()> {
        own::remove(root.at(paths::RESTORE_JOURNAL))
    }

    /// Why GitLab must not run, if it must not. A journal that cannot be read is a reason too.
    pub fn half_way(root: &RootDirectory) -> Option<String> {
        let words = "a restore ended half way: GitLab stays down until 'gitlab-backup restore' is done again, or 'gitlab-backup restore --undo' puts \
                     back what was there before";
        match Self::load(root) {
            Ok(Some(Self { state: State::Switching, .. })) => Some(words.to_owned()),
            Ok(_) => None,
            Err(error) => Some(format!(
                "it cannot be told whether a restore ended half way, and GitLab is not started: {error:#}"
            )),
        }
    }
}

/// What could not be removed when a restore was finished: nothing of it is live.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Leftover {
    /// What it is.
    pub thing: Thing,
    /// Why it is still there.
    pub why: String,
    /// It holds what nobody has elsewhere, so that nothing of ours removes it.
    pub by_hand: bool,
}

/// A thing that was put aside.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Thing {
    /// A database.
    Database {
        /// Its name.
        name: String,
        /// PostgreSQL's number of it; none in what a journal of an older version tells.
        number: Option<u32>,
    },
    /// A directory.
    Directory {
        /// Which one.
        held: Held,
        /// Whose rights are enough; none: root's.
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
            "move away what you need of it and remove it"
        } else {
            "the next run or restore removes it"
        };
        write!(f, " is left of a restore ({}): {fate}", self.why)
    }
}

impl Leftover {
    /// All that is left.
    pub fn load(root: &RootDirectory) -> Result<Vec<Self>> {
        // It protects nothing: what cannot be read keeps nobody from anything.
        match read_json(&root.at(paths::RESTORE_LEFT)) {
            Ok(all) => Ok(all.unwrap_or_default()),
            Err(error) => {
                tracing::warn!(
                    "{error:#}; what restores have left beside what is live is not known any more"
                );
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

/// Whether something waits for the last step of a restore.
pub fn is_to_finish(root: &RootDirectory) -> bool {
    let due = || -> Result<bool> {
        Ok(Journal::load(root)?
            .is_some_and(|journal| journal.state != State::Switching && !journal.undo)
            || !Leftover::load(root)?.is_empty())
    };
    due().unwrap_or(false)
}

/// What is left beside what is live, and what becomes of it.
pub fn left(root: &RootDirectory) -> Result<Vec<String>> {
    let mut lines: Vec<String> = Leftover::load(root)?.iter().map(ToString::to_string).collect();
    let Some(journal) = Journal::load(root)?.filter(|journal| journal.state != State::Switching)
    else {
        return Ok(lines);
    };
    if journal.state == State::Staging {
        lines.push(
            "a restore was cut off while it was laid out, and replaced nothing: what it left is removed by the next run or restore"
                .to_owned(),
        );
        return Ok(lines);
    }
    let aside = journal.aside();
    if !aside.is_empty() {
        let run = journal.plan.run.as_ref().map_or("a run", RunId::as_str);
        if journal.undo {
            lines.push(format!(
                "run {run} is restored, and what was there before is wanted back, which has failed ({}): 'gitlab-backup restore --undo' tries again, \
                 'gitlab-backup restore --keep' keeps what was restored",
                aside.join(", ")
            ));
            return Ok(lines);
        }
        lines.push(format!(
            "run {run} is restored, and what was there before is still beside it ({}): it is removed as soon as GitLab answers, or by the \
             first run after that{}",
            aside.join(", "),
            if journal.state == State::Switched { "; 'gitlab-backup restore --undo' puts it back" } else { "" }
        ));
    }
    Ok(lines)
}

impl Journal {
    /// The names of what is put aside.
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
