//! The record of a run, which the executor updates at every change. Records of failed runs are kept
//! too.

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

use super::{How, Part, Quiesced};

/// The largest JSON file outside of the state directory, in bytes: this program writes none that is
/// larger.
const LARGEST: u64 = 1 << 28;
/// How many records are kept, including failed runs: enough for a year of nightly runs.
const KEPT: usize = 400;

/// The record of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// The run.
    pub id: RunId,
    /// When it started.
    pub started: Timestamp,
    /// When it ended; none while it is running.
    pub finished: Option<Timestamp>,
    /// The outcome so far.
    pub outcome: Outcome,
    /// `prepare`, `capture`, `resume`, `store`, `finish`; of a restore `prepare`, `load`,
    /// `restore`, `resume`, `finish`.
    pub stage: String,
    /// The expected downtime; none in the first run.
    #[serde(default)]
    pub expected: Option<Downtime>,
    /// How long GitLab was down; none before it is up again.
    pub downtime: Option<Downtime>,
    /// The least time that GitLab was down, if the run ended before GitLab was up again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub downtime_longer_than: Option<f64>,
    /// How GitLab was kept from writing; none before everything is captured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quiesced: Option<Quiesced>,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// Problems that did not fail the run.
    pub warnings: Vec<String>,
    /// The parts in the repository, when the run is complete.
    #[serde(default)]
    pub parts: Vec<Part>,
    /// When the retention began to remove the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removed: Option<Timestamp>,
}

/// The tolerated difference between the clocks of two hosts, or of one before and after it was set.
pub const CLOCK: SignedDuration = SignedDuration::from_hours(1);

/// Whether a start time is in the future, because a clock was wrong: otherwise that run would be
/// the newest for ever.
pub fn is_ahead(started: Timestamp, now: Timestamp) -> bool {
    started.duration_since(now) > CLOCK
}

/// The kind of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A backup.
    Backup,
    /// A restore.
    Restore,
}

/// The outcome of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Not ended.
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
    /// The reason.
    pub reason: String,
    /// The unit's last lines in the journal.
    pub log: Vec<String>,
}

/// A downtime in seconds, split into its phases.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Downtime {
    /// From the first stop until the window opened.
    pub stop: f64,
    /// The window, in which everything is captured.
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
    /// The sum.
    pub fn total(&self) -> f64 {
        self.stop + self.capture + self.start
    }
}

/// A downtime for messages; an unknown one is not zero.
pub fn away(seconds: Option<f64>, longer_than: Option<f64>) -> String {
    match (seconds, longer_than) {
        (Some(seconds), _) => format!("{seconds:.1} s"),
        (None, Some(seconds)) => format!("longer than {seconds:.0} s"),
        (None, None) => "a time that is not known".to_owned(),
    }
}

/// How GitLab was kept from writing, and for how long, for messages.
pub fn outage(held: bool, seconds: Option<f64>, longer_than: Option<f64>) -> String {
    let how = if held { "held still" } else { "down" };
    format!("GitLab was {how} for {}", away(seconds, longer_than))
}

impl Record {
    /// The record of a run that has just started.
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
            quiesced: None,
            failure: None,
            warnings: Vec::new(),
            parts: Vec::new(),
            removed: None,
        }
    }

    /// The record of a run, if it is still kept.
    pub fn of(root: &RootDirectory, id: &RunId) -> Result<Option<Self>> {
        read_json(&Self::path(root, id))
    }

    /// Records that the retention removes the run: if the removal is interrupted, the remaining
    /// parts do not count as damage.
    pub fn remove(root: &RootDirectory, id: &RunId, now: Timestamp) -> Result<()> {
        let Some(record) = Self::of(root, id)? else { return Ok(()) };
        write_json(&Self::path(root, id), &Self { removed: Some(now), ..record })
    }

    /// The path of the record that is kept.
    fn path(root: &RootDirectory, id: &RunId) -> PathBuf {
        root.at(paths::RUNS).join(format!("{id}.json"))
    }

    /// How GitLab was kept from writing, and for how long in each phase, for messages; none if
    /// that is not known.
    pub fn phases(&self) -> Option<String> {
        match self.downtime {
            Some(Downtime { stop, capture, .. }) if self.was_held() => {
                Some(format!("{} (wait {stop:.1}, capture {capture:.1})", self.outage()))
            }
            Some(downtime) => Some(format!("GitLab was down for {downtime}")),
            None => self.downtime_longer_than.map(|_| self.outage()),
        }
    }

    /// How GitLab was kept from writing, and for how long, for messages.
    pub fn outage(&self) -> String {
        outage(self.was_held(), self.downtime.map(|all| all.total()), self.downtime_longer_than)
    }

    /// Whether GitLab was held still, and not stopped.
    pub fn was_held(&self) -> bool {
        self.quiesced.is_some_and(|quiesced| quiesced.how == How::Held)
    }

    /// How long GitLab was down, for messages.
    pub fn away(&self) -> String {
        away(self.downtime.map(|downtime| downtime.total()), self.downtime_longer_than)
    }

    /// The running backup, or the last one since boot.
    pub fn current(root: &RootDirectory) -> Result<Option<Self>> {
        Self::last(root, Kind::Backup)
    }

    /// The running backup or restore, or the last one; of backups, the last since boot.
    pub fn last(root: &RootDirectory, kind: Kind) -> Result<Option<Self>> {
        match kind {
            Kind::Backup => read_json(&root.at(paths::CURRENT_RUN)),
            Kind::Restore => read_json(&root.at(paths::RESTORE_RECORD)),
        }
    }

    /// All records, newest first; records dated after `now` come last. Warns about a record that
    /// cannot be read, and leaves it out.
    pub fn all(root: &RootDirectory, now: Timestamp) -> Result<Vec<Self>> {
        let mut records = Vec::new();
        let directory = root.at(paths::RUNS);
        let entries = match own::entries(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(records),
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("cannot list {} (as root?)", directory.display()));
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
        records.sort_by(|a: &Self, b: &Self| {
            is_ahead(a.started, now).cmp(&is_ahead(b.started, now)).then_with(|| b.id.cmp(&a.id))
        });
        Ok(records)
    }

    /// Removes the oldest records until `KEPT` are left.
    pub fn prune(root: &RootDirectory) -> Result<()> {
        let runs = root.at(paths::RUNS);
        let entries =
            own::entries(&runs).with_context(|| format!("cannot list {}", runs.display()))?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let id = |name: &str| name.strip_suffix(".json")?.parse::<RunId>().ok();
        let mut ids: Vec<RunId> = names.filter_map(|name| id(&name)).collect();
        ids.sort_unstable();
        let old = ids.len().saturating_sub(KEPT);
        ids[..old].iter().try_for_each(|id| own::remove(runs.join(format!("{id}.json"))))
    }

    /// Writes the record, for a backup also as that of the current run.
    pub fn save(&self, root: &RootDirectory, kind: Kind) -> Result<()> {
        match kind {
            Kind::Backup => {
                write_json(&root.at(paths::CURRENT_RUN), self)?;
                write_json(&Self::path(root, &self.id), self)
            }
            Kind::Restore => write_json(&root.at(paths::RESTORE_RECORD), self),
        }
    }
}

/// Reads a JSON file, also in a directory of another user; none if it does not exist.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    // The journal of a restore may list a million files.
    let state = relative(paths::STATE);
    let is_state = path.ancestors().any(|directory| directory.ends_with(state));
    let largest = if is_state { u64::MAX } else { LARGEST };
    let text = match beneath::read(path, largest) {
        Err(error) if beneath::is_missing(&error) => return Ok(None),
        text => text?,
    };
    serde_json::from_slice(&text).map(Some).with_context(|| {
        // The first two must not simply be removed: they say which units are down, and what was
        // replaced.
        let advice = if path.ends_with(relative(paths::PAUSED)) {
            "it names the units of GitLab that are down. Start GitLab ('gitlab-ctl start', or \
             'systemctl \
             start' of its target and units), then remove it"
        } else if path.ends_with(relative(paths::RESTORE_JOURNAL)) {
            "it lists the data that a restore has replaced. Look for databases and directories \
             called '…_replaced_…', '.gitlab-backup-replaced-…': if there are any, GitLab may be \
             half restored. Then move the file away, and restore a run as a whole"
        } else {
            "remove it"
        };
        format!("{} is damaged: {advice}", path.display())
    })
}

/// A path relative to the root directory.
fn relative(path: &str) -> &str {
    path.trim_start_matches('/')
}

/// Writes a JSON file atomically, and syncs it.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    own::make(path.parent().context("a file has a directory")?)?;
    durable::write_with(path, 0o600, |file| {
        let mut writer = BufWriter::new(file);
        serde_json::to_writer_pretty(&mut writer, value)?;
        writer.write_all(b"\n")?;
        writer.flush().map_err(Into::into)
    })
}
