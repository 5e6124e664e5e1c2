//! The interface to the service manager. A trait, so that tests can replace systemd.

use anyhow::Result;
use async_trait::async_trait;

use super::{ActiveState, Events, UnitState};

/// How a new job deals with the queued ones, systemctl(1) `--job-mode=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The new job replaces conflicting ones.
    Replace,
    /// The new job is not queued if it conflicts.
    Fail,
    /// Affects the unit alone: its requirements are not started, its dependents not stopped, except
    /// those with `BindsTo=`.
    IgnoreRequirements,
}

impl Mode {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Replace => "replace",
            Self::Fail => "fail",
            Self::IgnoreRequirements => "ignore-requirements",
        }
    }
}

/// The part of a unit's state that can be read for many units at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// `ActiveState`.
    pub active: ActiveState,
    /// `SubState`.
    pub sub: String,
    /// The id of its job, 0 for none.
    pub job: u32,
}

/// systemd, as far as a backup needs it. A call fails only if systemd refuses it or stays
/// unreachable.
#[async_trait(?Send)]
pub trait ServiceManager {
    /// systemd's version, the number alone.
    async fn version(&self) -> Result<u32>;

    /// Queues a start. Returns the id of the job, 0 if the answer was lost.
    async fn start(&self, unit: &str, mode: Mode) -> Result<u32>;

    /// Queues a start, also without the bus, for the ends of brackets.
    async fn start_later(&self, unit: &str) -> Result<()>;

    /// Queues a stop; does nothing if the unit is not loaded. Returns false if it was not queued:
    /// with [`Mode::Fail`], if a start of the unit or of a dependent is queued.
    async fn stop(&self, unit: &str, mode: Mode) -> Result<bool>;

    /// Sends SIGKILL to every process of a unit.
    async fn kill(&self, unit: &str) -> Result<()>;

    /// Sends SIGTERM to the main process of a unit.
    async fn terminate(&self, unit: &str) -> Result<()>;

    /// Freezes every process of a unit, and waits until they are frozen. Fails if control groups do
    /// not support it.
    async fn freeze(&self, unit: &str) -> Result<()>;

    /// Thaws a unit. Does nothing if it is gone or not frozen.
    async fn thaw(&self, unit: &str) -> Result<()>;

    /// Resets the failed state and the start counter of a unit.
    async fn reset_failed(&self, unit: &str) -> Result<()>;

    /// Keeps a unit in memory while this connection lives, so that its result can be read after
    /// it ended.
    async fn keep(&self, unit: &str) -> Result<()>;

    /// Starts the transient unit `name`, which does nothing and has `PartOf=unit`. Does nothing if
    /// it exists already.
    async fn mark(&self, name: &str, unit: &str) -> Result<()>;

    /// The names of all loaded units that begin with `prefix`.
    async fn loaded(&self, prefix: &str) -> Result<Vec<String>>;

    /// The names of all running services.
    async fn running_services(&self) -> Result<Vec<String>>;

    /// The unit that a process belongs to.
    async fn unit_of(&self, pid: u32) -> Result<String>;

    /// Reads the state of a unit. A unit that does not exist has `load` = `not-found`.
    async fn state(&self, unit: &str) -> Result<UnitState>;

    /// The summaries of `units`, in their order, by one call.
    async fn summaries(&self, units: &[&str]) -> Result<Vec<Summary>>;

    /// The events from now on.
    async fn events(&self) -> Result<Events>;
}
