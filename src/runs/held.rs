//! The records of a hold: what is held now, so that it can be let go whatever dies, and how the
//! hold went.

use std::time::Duration;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::record::{read_json, write_json};
use crate::host::own;
use crate::paths::{self, RootDirectory};

/// What is held now, in the order in which it was taken. Written before anything is taken.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Held {
    /// What was taken.
    pub taken: Vec<Taken>,
    /// It was proved that nothing was in progress: whoever lets go checks that all is still held.
    #[serde(default)]
    pub proven: bool,
}

/// Something that is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Taken {
    /// A control group, which is frozen.
    Group(Group),
    /// The main process of an SSH server, which is stopped with SIGSTOP.
    Listener(Listener),
}

/// The control group of a unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// The unit.
    pub unit: String,
    /// Its control group, below the hierarchy's root.
    pub path: String,
    /// Which run of the unit.
    pub invocation: String,
    /// Its main process.
    pub main_pid: u32,
}

/// The process that accepts connections for an SSH server. Its sessions go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// The unit.
    pub unit: String,
    /// The process.
    pub pid: u32,
    /// When it was started, /proc/PID/stat: its PID may be used again.
    pub started: u64,
}

impl Taken {
    /// The control group, if it is one.
    pub fn group(&self) -> Option<&Group> {
        match self {
            Self::Group(group) => Some(group),
            Self::Listener(_) => None,
        }
    }
}

impl Held {
    /// The frozen control groups.
    pub fn groups(&self) -> impl Iterator<Item = &Group> {
        self.taken.iter().filter_map(Taken::group)
    }

    /// What is held; `None` if nothing is.
    pub fn load(root: &RootDirectory) -> Result<Option<Self>> {
        read_json(&root.at(paths::HELD))
    }

    /// Replaces the record.
    pub fn save(&self, root: &RootDirectory) -> Result<()> {
        write_json(&root.at(paths::HELD), self)
    }

    /// Removes the record.
    pub fn clear(root: &RootDirectory) -> Result<()> {
        own::remove(root.at(paths::HELD))
    }
}

/// The search for a moment at which nothing is in progress.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Search {
    /// The front was held until what was in progress had ended; otherwise nothing was in progress.
    #[serde(default)]
    pub front: bool,
    /// Attempts that found something in progress.
    #[serde(default)]
    pub vain: u32,
    /// How long users waited in them, in seconds.
    #[serde(default)]
    pub waited: f64,
}

impl Search {
    /// Adds an attempt that found something in progress.
    pub fn add_vain(&mut self, waited: Duration) {
        self.vain += 1;
        self.waited += waited.as_secs_f64();
    }
}

/// How the hold of a run went.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct HoldAccount {
    /// Why GitLab cannot be held on this host at all: it was not tried.
    #[serde(default)]
    pub obstacle: Option<String>,
    /// Why the attempt failed, or the hold ended early.
    #[serde(default)]
    pub failure: Option<String>,
    /// The search for a moment at which nothing is in progress.
    #[serde(flatten)]
    pub search: Search,
    /// When users began to wait, in microseconds of CLOCK_MONOTONIC; 0 if GitLab was not held.
    #[serde(default)]
    pub since: u64,
}

impl HoldAccount {
    /// The account of the run's hold; empty if there was none.
    pub fn load(root: &RootDirectory) -> Result<Self> {
        Ok(read_json(&root.at(paths::HOLD))?.unwrap_or_default())
    }

    /// Replaces the record.
    pub fn save(&self, root: &RootDirectory) -> Result<()> {
        write_json(&root.at(paths::HOLD), self)
    }
}
