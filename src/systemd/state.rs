//! What a unit is doing and how it last ended, read from the unit itself.

use std::collections::HashMap;

use rustix::time::{ClockId, clock_gettime};
use zbus::{OwnedObjectPath, OwnedVariant as OwnedValue};

/// `ActiveState`, org.freedesktop.systemd1(5). What is not known counts as failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActiveState {
    /// Up.
    Active,
    /// Up, and reloading or refreshing.
    Reloading,
    /// Down.
    Inactive,
    /// Down, and not well.
    Failed,
    /// On its way up; a oneshot that works, or a service that waits for its restart.
    Activating,
    /// On its way down.
    Deactivating,
}

impl ActiveState {
    fn parse(text: &str) -> Self {
        match text {
            "active" => Self::Active,
            "reloading" | "refreshing" => Self::Reloading,
            "inactive" => Self::Inactive,
            "activating" => Self::Activating,
            "deactivating" => Self::Deactivating,
            _ => Self::Failed,
        }
    }

    /// Up, or on its way up: what an admin would call running.
    pub fn is_running(self) -> bool {
        matches!(self, Self::Active | Self::Reloading | Self::Activating)
    }

    /// Down, and nothing under way.
    pub fn is_down(self) -> bool {
        matches!(self, Self::Inactive | Self::Failed)
    }
}

/// One unit at one moment. Times are microseconds of CLOCK_MONOTONIC, 0 for never.
#[derive(Debug, Clone)]
pub struct UnitState {
    /// The unit.
    pub name: String,
    /// `not-found` is a state too.
    pub load: String,
    /// It has no file (systemd-run): stopped, it is gone.
    pub transient: bool,
    /// What it is doing.
    pub active: ActiveState,
    /// The finer state, such as `auto-restart`.
    pub sub: String,
    /// A job is queued or running for it.
    pub has_job: bool,
    /// `Result` of a service, `success` for what has none.
    pub result: String,
    /// Exit status of the last main process.
    pub exit_status: i32,
    /// What the unit says that it does, sd_notify(3) STATUS=.
    pub status_text: String,
    /// When it last became active.
    pub active_enter: u64,
    /// When it last left `inactive`.
    pub inactive_exit: u64,
    /// When it last became inactive.
    pub inactive_enter: u64,
    /// The invocation's id, 32 hexadecimal digits, empty if it never ran.
    pub invocation: String,
    /// The unit's control group, empty if it has none.
    pub control_group: String,
    pub(super) lists: HashMap<String, Vec<String>>,
}

impl UnitState {
    pub(super) fn new(name: &str, unit: &HashMap<String, OwnedValue>, service: &HashMap<String, OwnedValue>) -> Self {
        let text = |map: &HashMap<String, OwnedValue>, key: &str| {
            map.get(key).and_then(|value| <&str>::try_from(value).ok()).unwrap_or_default().to_owned()
        };
        let number = |key: &str| unit.get(key).and_then(|value| u64::try_from(value).ok()).unwrap_or(0);
        let job = unit.get("Job").and_then(|value| <(u32, OwnedObjectPath)>::try_from(value.try_clone().ok()?).ok());
        let invocation = unit.get("InvocationID").and_then(|value| <Vec<u8>>::try_from(value.try_clone().ok()?).ok()).unwrap_or_default();
        let lists = super::closure::LISTS
            .iter()
            .filter_map(|key| Some(((*key).to_owned(), <Vec<String>>::try_from(unit.get(*key)?.try_clone().ok()?).ok()?)))
            .collect();
        let result = text(service, "Result");
        Self {
            name: name.to_owned(),
            load: text(unit, "LoadState"),
            transient: unit.get("Transient").and_then(|value| bool::try_from(value).ok()).unwrap_or(false),
            active: ActiveState::parse(&text(unit, "ActiveState")),
            sub: text(unit, "SubState"),
            has_job: job.is_some_and(|(id, _)| id != 0),
            result: if result.is_empty() && service.is_empty() { "success".to_owned() } else { result },
            exit_status: service.get("ExecMainStatus").and_then(|value| i32::try_from(value).ok()).unwrap_or(0),
            status_text: text(service, "StatusText"),
            active_enter: number("ActiveEnterTimestampMonotonic"),
            inactive_exit: number("InactiveExitTimestampMonotonic"),
            inactive_enter: number("InactiveEnterTimestampMonotonic"),
            invocation: invocation.iter().map(|byte| format!("{byte:02x}")).collect(),
            control_group: text(service, "ControlGroup"),
            lists,
        }
    }

    /// Whether nothing more will happen by itself: no job, and not between two attempts.
    pub fn is_settled(&self) -> bool {
        !self.has_job && self.active.is_down()
    }

    /// Whether it ran after `since` and ended well. Unknown is failure.
    pub fn succeeded_since(&self, since: u64) -> bool {
        self.inactive_exit >= since && self.active == ActiveState::Inactive && self.result == "success"
    }

    /// Whether it was active at some time after `since`.
    pub fn reached_since(&self, since: u64) -> bool {
        self.active_enter >= since
    }
}

/// Now, in the clock that systemd's timestamps use.
pub fn monotonic_micros() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1000
}
