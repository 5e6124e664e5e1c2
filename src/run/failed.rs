//! A unit that failed, in words: what systemd says of it, and what its program said last.

use std::fmt;

use crate::systemd::UnitState;

/// A unit that failed.
#[derive(Debug)]
pub struct Failed {
    /// Its name.
    pub unit: String,
    /// Why, in words.
    pub reason: String,
    /// Its program has ended by itself: what it said last is why.
    pub spoke: bool,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} (journalctl -u {})", self.unit, self.reason, self.unit)
    }
}

impl std::error::Error for Failed {}

impl Failed {
    /// One that did not do what it should, in these words.
    pub fn new(state: &UnitState, reason: impl Into<String>) -> Self {
        Self { unit: state.name.clone(), reason: reason.into(), spoke: false }
    }

    /// Of one that systemd did not run.
    pub fn idle(state: &UnitState, what: &str) -> Self {
        let why = state.condition.as_ref().map_or_else(String::new, |condition| {
            format!(": {condition} is not met (see 'systemctl cat')")
        });
        Self::new(state, format!("{what}{why}"))
    }

    /// Of one that was started after `since`.
    pub fn of(state: &UnitState, since: u64) -> Self {
        if state.inactive_exit < since {
            return Self::idle(state, "was started and did not run");
        }
        let reason = match state.result.as_str() {
            "timeout" => "ran out of time".to_owned(),
            // Its own program never ran.
            "exit-code" if state.exit_status == 0 => {
                "could not be started: a command before its program failed (ExecStartPre=)"
                    .to_owned()
            }
            "exit-code" => match by_systemd(state.exit_status) {
                Some(why) => {
                    format!("could not be started: {why} (exit status {})", state.exit_status)
                }
                None => format!("failed with exit status {}", state.exit_status),
            },
            "signal" | "core-dump" => format!("was killed by signal {}", state.exit_status),
            "success" => "was stopped before it was done".to_owned(),
            other => format!("failed: {other}"),
        };
        let spoke = state.result == "exit-code"
            && state.exit_status != 0
            && by_systemd(state.exit_status).is_none();
        Self { spoke, ..Self::new(state, reason) }
    }

    /// With what its program said last, in these lines of its log.
    pub fn told(self, log: &[String]) -> Self {
        match log
            .iter()
            .rev()
            .find_map(|line| line.strip_prefix("gitlab-backup: "))
            .filter(|_| self.spoke)
        {
            Some(said) => Self { reason: said.to_owned(), ..self },
            None => self,
        }
    }
}

/// What an exit status says that is systemd's and not the program's: systemd.exec(5) PROCESS EXIT
/// CODES.
fn by_systemd(status: i32) -> Option<&'static str> {
    match status {
        203 => Some("its program cannot be run"),
        216 => Some("its group does not exist"),
        217 => Some("its user does not exist"),
        233 => Some(
            "its directory below /run cannot be made: what is there must be a directory of root's, and no link",
        ),
        238 => Some(
            "its directory below /var/lib/gitlab-backup cannot be made: what is there must be a directory of root's, and no link",
        ),
        226 => Some("its sandbox cannot be set up"),
        243 => Some(
            "a credential of its is not there or cannot be decrypted ('gitlab-backup check' tells which)",
        ),
        _ => None,
    }
}
