//! Errors that end the program with an exit code of their own.

/// An error with an exit code of its own.
#[derive(Debug)]
pub struct Exit {
    /// The code.
    pub code: u8,
    /// What to say.
    pub message: String,
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Exit {}

/// A run or unit failed.
pub const UNIT_FAILED: u8 = 3;
/// A run is going on.
pub const ALREADY_RUNNING: u8 = 4;

/// Every exit code, and what it says: for `--help` and the manual.
pub const CODES: [(u8, &str); 5] = [
    (0, "success"),
    (1, "error"),
    (2, "usage"),
    (
        UNIT_FAILED,
        "the run, the restore or one of their units failed; for status: something is wrong",
    ),
    (ALREADY_RUNNING, "a run or a restore is already going on"),
];

/// [`CODES`] as the last paragraph of `--help`.
pub fn codes() -> String {
    let lines = CODES.map(|(code, meaning)| format!("  {code}  {meaning}"));
    format!("Exit codes:\n{}", lines.join("\n"))
}
