//! Exit codes, and errors that end the program with a certain exit code.

/// An error with an exit code.
#[derive(Debug)]
pub struct Exit {
    /// The exit code.
    pub code: u8,
    /// The error message; empty if everything has been printed already.
    pub message: String,
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Exit {}

/// A run or a unit failed.
pub const UNIT_FAILED: u8 = 3;
/// A run or a restore is already running.
pub const ALREADY_RUNNING: u8 = 4;

/// Every exit code with its meaning, for `--help` and the manual.
pub const CODES: [(u8, &str); 5] = [
    (0, "success"),
    (1, "error"),
    (2, "usage"),
    (
        UNIT_FAILED,
        "the run, the restore or one of their units failed; for status: there is a problem",
    ),
    (ALREADY_RUNNING, "a run or a restore is already running"),
];

/// [`CODES`] as the last paragraph of `--help`.
pub fn codes() -> String {
    let lines = CODES.map(|(code, meaning)| format!("  {code}  {meaning}"));
    format!("Exit codes:\n{}", lines.join("\n"))
}
