//! Explains why a unit failed: by the result that systemd recorded, and by the last error that its
//! program logged.

use std::fmt;

use crate::systemd::UnitState;

/// A unit that failed.
#[derive(Debug)]
pub struct Failed {
    /// The name of the unit.
    pub unit: String,
    /// Why it failed, in words.
    pub reason: String,
    /// Whether its program exited with an error by itself, so that the log has the reason.
    pub has_exited: bool,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} (journalctl -u {})", self.unit, self.reason, self.unit)
    }
}

impl std::error::Error for Failed {}

impl Failed {
    /// A failure of the unit for this reason.
    pub fn new(state: &UnitState, reason: impl Into<String>) -> Self {
        Self { unit: state.name.clone(), reason: reason.into(), has_exited: false }
    }

    /// A unit that systemd did not run. `what` describes that; a condition that is not met is
    /// added.
    pub fn not_run(state: &UnitState, what: &str) -> Self {
        let why = state.condition.as_ref().map_or_else(String::new, |condition| {
            format!(": {condition} is not met (see 'systemctl cat')")
        });
        Self::new(state, format!("{what}{why}"))
    }

    /// The failure of a unit that was to be started after `since` (monotonic, microseconds).
    pub fn of(state: &UnitState, since: u64) -> Self {
        if !state.started_since(since) {
            return Self::not_run(state, "was started and did not run");
        }
        let reason = match state.result.as_str() {
            "timeout" => "ran out of time".to_owned(),
            // The unit failed, but its main program did not exit with an error: it never ran.
            "exit-code" if state.exit_status == 0 => "could not be started: a command before its \
                                                      program failed (ExecStartPre=)"
                .to_owned(),
            "exit-code" => match systemd_exit_reason(state.exit_status) {
                Some(why) => {
                    format!("could not be started: {why} (exit status {})", state.exit_status)
                }
                None => format!("failed with exit status {}", state.exit_status),
            },
            "signal" | "core-dump" => format!("was killed by signal {}", state.exit_status),
            "success" => "was stopped before it was done".to_owned(),
            other => format!("failed: {other}"),
        };
        let has_exited = state.result == "exit-code"
            && state.exit_status != 0
            && systemd_exit_reason(state.exit_status).is_none();
        Self { has_exited, ..Self::new(state, reason) }
    }

    /// Replaces the reason by the last error of the program in `log`, if the program exited by
    /// itself.
    pub fn with_log(self, log: &[String]) -> Self {
        match log
            .iter()
            .rev()
            .find_map(|line| line.strip_prefix("gitlab-backup: "))
            .filter(|_| self.has_exited)
        {
            Some(error) => Self { reason: error.to_owned(), ..self },
            None => self,
        }
    }
}

/// The meaning of an exit status that systemd sets when it cannot execute a program:
/// systemd.exec(5), PROCESS EXIT CODES.
fn systemd_exit_reason(status: i32) -> Option<&'static str> {
    match status {
        203 => Some("its program cannot be run"),
        216 => Some("its group does not exist"),
        217 => Some("its user does not exist"),
        233 => Some(
            "its directory below /run cannot be created: if it exists, it must belong to root and \
             be no link",
        ),
        238 => Some(
            "its directory below /var/lib/gitlab-backup cannot be created: if it exists, it must \
             belong to root and be no link",
        ),
        226 => Some("its sandbox cannot be set up"),
        243 => Some(
            "one of its credentials is missing or cannot be decrypted ('gitlab-backup check' \
             shows which)",
        ),
        _ => None,
    }
}
