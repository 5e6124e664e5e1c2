//! `quiesce = "hold"`: GitLab is held still for the capture, and not stopped.
//!
//! What answers users is frozen at a moment at which nothing is in progress: requests wait, and
//! none fails. What works without users is stopped, which nobody notices.

use super::{Gitlab, Phase};
use crate::values::{Timespan, UnitName};

/// How GitLab is held.
#[derive(Debug, Clone)]
pub struct Hold {
    /// `front`: the units through which users reach GitLab. Those that run are held until what is
    /// in progress has ended.
    pub front: Vec<UnitName>,
    /// `max-hold`: the longest time that users may wait, failed attempts included.
    pub longest: Timespan,
    /// `hold-fallback`
    pub fallback: Fallback,
    /// `quiesce = "auto"`: GitLab is held where that is possible, and stopped otherwise.
    pub is_auto: bool,
    /// With `auto`: why GitLab is always stopped.
    pub obstacle: Option<String>,
}

/// What a run does if GitLab cannot be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallback {
    /// It stops GitLab, in phases.
    Stop,
    /// It fails.
    Fail,
}

impl Hold {
    /// Whether GitLab may be stopped instead without a warning: `auto` promises no hold where none
    /// is possible.
    pub fn is_optional(&self) -> bool {
        self.is_auto && self.fallback == Fallback::Stop
    }

    /// The names under which web servers and SSH servers are installed.
    pub(super) const FRONT: [&str; 8] = [
        "nginx.service",
        "apache2.service",
        "httpd.service",
        "haproxy.service",
        "caddy.service",
        "gitlab-sshd.service",
        "ssh.service",
        "sshd.service",
    ];
}

impl Gitlab {
    /// The units that a hold freezes.
    pub fn held(&self) -> impl Iterator<Item = &UnitName> {
        let answers = |unit: &UnitName| {
            matches!(self.phase(unit), Some(Phase::Gitaly | Phase::Web))
                && !self.hold.front.contains(unit)
        };
        self.writers.iter().filter(move |unit| answers(unit))
    }

    /// The units that a hold stops: those that work without users, and what starts such work.
    pub fn stopped_by_hold(&self) -> impl Iterator<Item = &UnitName> {
        self.writers.iter().filter(|unit| {
            let starts = [".timer", ".path"].iter().any(|kind| unit.as_str().ends_with(kind));
            self.phase(unit) == Some(Phase::Background) || starts
        })
    }
}
