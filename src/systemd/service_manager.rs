//! What is asked of the service manager. One trait, so that what is decided by its answers can be
//! tried without a host.

use anyhow::Result;
use async_trait::async_trait;

use super::{ActiveState, Events, UnitState};

/// How a job gets along with those that are queued, systemctl(1) `--job-mode=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It replaces them.
    Replace,
    /// They stay, and it is not queued.
    Fail,
    /// It concerns the unit alone: nothing that it requires is started, nothing that requires it
    /// is stopped. What is bound to it goes down with it all the same.
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

/// What can be told of many units at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// `ActiveState`.
    pub active: ActiveState,
    /// `SubState`.
    pub sub: String,
    /// The number of its job, 0 for none.
    pub job: u32,
}

/// systemd, as far as a backup needs it. Every call fails only when the manager has refused, or is
/// away for good.
#[async_trait(?Send)]
pub trait ServiceManager {
    /// Queues a start; the number of its job, 0 if that was lost.
    async fn start(&self, unit: &str, mode: Mode) -> Result<u32>;

    /// Queues a start, by whatever way there is, for the ends of brackets: they must not hold up
    /// what waits for them.
    async fn start_later(&self, unit: &str) -> Result<()>;

    /// Queues a stop. A unit that is not loaded is stopped. False if it was not queued, which
    /// happens with [`Mode::Fail`] alone: a start of it, or of what requires it, is.
    async fn stop(&self, unit: &str, mode: Mode) -> Result<bool>;

    /// SIGKILL to every process of a unit.
    async fn kill(&self, unit: &str) -> Result<()>;

    /// Freezes every process of a unit; returns when it is. Fails where control groups cannot.
    async fn freeze(&self, unit: &str) -> Result<()>;

    /// Lets a frozen unit go on. One that is gone or was not frozen is fine.
    async fn thaw(&self, unit: &str) -> Result<()>;

    /// Forgets that a unit failed, and how often it was started.
    async fn reset_failed(&self, unit: &str) -> Result<()>;

    /// Keeps a unit in memory while this connection lives, so that its result can be read after
    /// it ended.
    async fn keep(&self, unit: &str) -> Result<()>;

    /// Has a unit of ours up that does nothing and is part of `unit`; one that is there already is
    /// another's, and is as good.
    async fn mark(&self, name: &str, unit: &str) -> Result<()>;

    /// The names of all units in memory whose names begin so.
    async fn loaded(&self, prefix: &str) -> Result<Vec<String>>;

    /// The names of all services that run.
    async fn running_services(&self) -> Result<Vec<String>>;

    /// The unit whose process this is.
    async fn unit_of(&self, pid: u32) -> Result<String>;

    /// Reads a unit. One that does not exist has `load` = `not-found`.
    async fn state(&self, unit: &str) -> Result<UnitState>;

    /// What each of `units` is doing, in their order, in one call.
    async fn summaries(&self, units: &[&str]) -> Result<Vec<Summary>>;

    /// What happens from now on.
    async fn events(&self) -> Result<Events>;
}
