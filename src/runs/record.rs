//! The record of a run: written by the executor at every change, kept for failed runs too.

use std::fmt;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use jiff::{SignedDuration, Timestamp};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::host::{beneath, durable, own};
use crate::paths::{self, RootDirectory};
use crate::values::RunId;

use super::Part;

/// Bytes of a JSON file that does not lie among our own state: what is larger was not written by
/// us.
const LARGEST: u64 = 1 << 28;
/// Records that are kept, those of failed runs among them: more than a year of nights.
const KEPT: usize = 400;

/// A run as its executor saw it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// The run.
    pub id: RunId,
    /// When it started.
    pub started: Timestamp,
    /// When it ended; none while it goes on.
    pub finished: Option<Timestamp>,
    /// How it stands.
    pub outcome: Outcome,
    /// `prepare`, `capture`, `resume`, `store`, `finish`; of a restore `prepare`, `restore`,
    /// `resume`, `finish`.
    pub stage: String,
    /// How long GitLab would probably be down, told before it was; none in a first run.
    #[serde(default)]
    pub expected: Option<Downtime>,
    /// How long GitLab was down; none before it is up again.
    pub downtime: Option<Downtime>,
    /// Seconds that GitLab was down at least, where its return was not seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub downtime_longer_than: Option<f64>,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// What did not fail the run but should be known.
    pub warnings: Vec<String>,
    /// What is in the repository, when the run is complete.
    #[serde(default)]
    pub parts: Vec<Part>,
    /// When the retention began to remove it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removed: Option<Timestamp>,
}

/// By how much a clock may be ahead of another, or of itself before it was set.
pub const CLOCK: SignedDuration = SignedDuration::from_hours(1);

/// Whether something is dated after `now`, by a clock that was wrong: it would be the newest for
/// ever.
pub fn is_ahead(started: Timestamp, now: Timestamp) -> bool {
    started.duration_since(now) > CLOCK
}

/// What a record is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A backup.
    Backup,
    /// A restore.
    Restore,
}

/// How a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Going on.
    Running,
    /// Its manifest is in the repository.
    Complete,
    /// Anything else.
    Failed,
}

/// Why a run failed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Failure {
    /// The unit that failed, if one did.
    pub unit: Option<String>,
    /// What went wrong.
    pub reason: String,
    /// The unit's last lines in the journal.
    pub log: Vec<String>,
}

/// Seconds of downtime, split as they were spent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Downtime {
    /// From the first stop to the window's opening.
    pub stop: f64,
    /// The window: everything captured.
    pub capture: f64,
    /// From the window's end until GitLab answered again.
    pub start: f64,
}

impl fmt::Display for Downtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.1} s (stop {:.1}, capture {:.1}, start {:.1})",
            self.total(),
            self.stop,
            self.capture,
            self.start
        )
    }
}

impl Downtime {
    /// The whole.
    pub fn total(&self) -> f64 {
        self.stop + self.capture + self.start
    }
}

/// A downtime in words; what is not known is not nothing.
pub fn away(seconds: Option<f64>, longer_than: Option<f64>) -> String {
    match (seconds, longer_than) {
        (Some(seconds), _) => format!("{seconds:.1} s"),
        (None, Some(seconds)) => format!("longer than {seconds:.0} s"),
        (None, None) => "a time that is not known".to_owned(),
    }
}

impl Record {
    /// A run that begins now.
    pub fn begin(id: RunId, started: Timestamp) -> Self {
        let stage = "prepare".to_owned();
        Self {
            id,
            started,
            finished: None,
            outcome: Outcome::Running,
            stage,
            expected: None,
            downtime: None,
            downtime_longer_than: None,
            failure: None,
            warnings: Vec::new(),
            parts: Vec::new(),
            removed: None,
        }
    }

    /// The run's record, if it is kept.
    pub fn of(root: &RootDirectory, id: &RunId) -> Result<Option<Self>> {
        read_json(&Self::kept(root, id))
    }

    /// Notes that the retention removes the run: what is left of it, should that be cut off, is
    /// nothing that was lost.
    pub fn remove(root: &RootDirectory, id: &RunId, now: Timestamp) -> Result<()> {
        let Some(record) = Self::of(root, id)? else { return Ok(()) };
        write_json(&Self::kept(root, id), &Self { removed: Some(now), ..record })
    }

    fn kept(root: &RootDirectory, id: &RunId) -> PathBuf {
        root.at(paths::RUNS).join(format!("{id}.json"))
    }

    /// How long GitLab was down, in words.
    pub fn away(&self) -> String {
        away(self.downtime.map(|downtime| downtime.total()), self.downtime_longer_than)
    }

    /// The run that goes on, or the last that did since boot.
    pub fn current(root: &RootDirectory) -> Result<Option<Self>> {
        Self::last(root, Kind::Backup)
    }

    /// The one of this kind that goes on, or the last that did: of backups since boot.
    pub fn last(root: &RootDirectory, kind: Kind) -> Result<Option<Self>> {
        match kind {
            Kind::Backup => read_json(&root.at(paths::CURRENT_RUN)),
            Kind::Restore => read_json(&root.at(paths::RESTORE_RECORD)),
        }
    }

    /// All records, newest first; those that are dated in the future come last, for they are not
    /// the newest. One that cannot be read is left out with a warning.
    pub fn all(root: &RootDirectory) -> Result<Vec<Self>> {
        let mut records = Vec::new();
        let entries = match own::entries(root.at(paths::RUNS)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(records),
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("cannot list {} (as root?)", paths::RUNS));
            }
        };
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match read_json(&path) {
                Ok(record) => records.extend(record),
                Err(error) => tracing::warn!("{error:#}"),
            }
        }
        let now = Timestamp::now();
        records.sort_by(|a: &Self, b: &Self| {
            is_ahead(a.started, now).cmp(&is_ahead(b.started, now)).then_with(|| b.id.cmp(&a.id))
        });
        Ok(records)
    }

    /// Removes the oldest, but for so many: whoever looks back looks at every one.
    pub fn prune(root: &RootDirectory) -> Result<()> {
        let runs = root.at(paths::RUNS);
        let entries =
            own::entries(&runs).with_context(|| format!("cannot list {}", runs.display()))?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let id = |name: &str| name.strip_suffix(".json")?.parse::<RunId>().ok();
        let mut ours: Vec<RunId> = names.filter_map(|name| id(&name)).collect();
        ours.sort_unstable();
        let old = ours.len().saturating_sub(KEPT);
        ours[..old].iter().try_for_each(|id| own::remove(runs.join(format!("{id}.json"))))
    }

    /// Writes the record where the helpers and commands look for the current run, and where it is
    /// kept.
    pub fn save(&self, root: &RootDirectory, kind: Kind) -> Result<()> {
        match kind {
            Kind::Backup => {
                write_json(&root.at(paths::CURRENT_RUN), self)?;
                write_json(&Self::kept(root, &self.id), self)
            }
            Kind::Restore => write_json(&root.at(paths::RESTORE_RECORD), self),
        }
    }
}

/// Reads a JSON file, which may lie in a directory of others; none if it is not there.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    // A restore may have a million files to remember.
    let state = relative(paths::STATE);
    let outlives = path.ancestors().any(|directory| directory.ends_with(state));
    let largest = if outlives { u64::MAX } else { LARGEST };
    let text = match beneath::read(path, largest) {
        Err(error) if beneath::is_missing(&error) => return Ok(None),
        text => text?,
    };
    serde_json::from_slice(&text).map(Some).with_context(|| {
        // Nothing else knows what is down: without the first nothing would start it.
        let advice = if path.ends_with(relative(paths::PAUSED)) {
            "it names what of GitLab is down. Start GitLab ('gitlab-ctl start', or 'systemctl start' of its target and units), then remove it"
        } else if path.ends_with(relative(paths::RESTORE_JOURNAL)) {
            "it tells what of GitLab a restore has replaced. Look for databases and directories called '…_replaced_…', '.gitlab-backup-replaced-…': if \
             there are any, GitLab may be half restored. Then move the file away, and restore a run as a whole"
        } else {
            "remove it"
        };
        format!("{} is damaged: {advice}", path.display())
    })
}

/// A path of ours as it is below any root.
fn relative(path: &str) -> &str {
    path.trim_start_matches('/')
}

/// Writes a JSON file under its final name only when it is whole and on disk.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    own::make(path.parent().context("a file has a directory")?)?;
    durable::write_with(path, 0o600, |file| {
        let mut writer = BufWriter::new(file);
        serde_json::to_writer_pretty(&mut writer, value)?;
        writer.write_all(b"\n")?;
        writer.flush().map_err(Into::into)
    })
}
