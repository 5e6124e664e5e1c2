//! The result of one check: what was checked, the verdict, and a remedy.

use std::fmt;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use crate::host::text;

/// The verdict of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// No problem.
    Ok,
    /// A problem that does not prevent a run.
    Warning,
    /// An error.
    Wrong,
}

/// The result of one check. Its JSON is stable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What was checked.
    pub what: String,
    /// The verdict.
    pub verdict: Verdict,
    /// The observation, or the problem and its remedy.
    pub message: String,
}

impl Finding {
    /// A finding that is ok, or an error.
    pub fn of(what: impl Into<String>, result: Result<String>) -> Self {
        let (verdict, message) = match result {
            Ok(seen) => (Verdict::Ok, seen),
            Err(error) => (Verdict::Wrong, text::why(&error)),
        };
        Self { what: what.into(), verdict, message }
    }

    /// A finding that is a warning.
    pub fn warning(what: impl Into<String>, message: impl Into<String>) -> Self {
        Self { what: what.into(), verdict: Verdict::Warning, message: message.into() }
    }

    /// One finding for each error; without any, one that says that everything `seen` is there.
    pub fn each_or(what: &str, errors: Vec<anyhow::Error>, seen: String) -> Vec<Self> {
        if errors.is_empty() {
            return vec![Self::of(what, Ok(format!("{seen}: all there")))];
        }
        errors.into_iter().map(|error| Self::of(what, Err(error))).collect()
    }

    /// What was checked and the message, as one line without control characters.
    pub fn line(&self) -> String {
        format!(
            "{}: {}",
            text::clean(&self.what),
            text::clean(&self.message.trim().replace('\n', "; "))
        )
    }

    /// Whether the verdict is an error.
    pub fn is_wrong(&self) -> bool {
        self.verdict == Verdict::Wrong
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.verdict {
            Verdict::Ok => "ok",
            Verdict::Warning => "warning",
            Verdict::Wrong => "WRONG",
        };
        write!(f, "{word:<7} {}", self.line())
    }
}

/// Fails with all errors, and logs the warnings.
pub fn conclude(findings: &[Finding]) -> Result<()> {
    let mut wrong = Vec::new();
    for finding in findings {
        match finding.verdict {
            Verdict::Ok => tracing::debug!("{}", finding.line()),
            Verdict::Warning => tracing::warn!("{}", finding.line()),
            Verdict::Wrong => wrong.push(finding.line()),
        }
    }
    if !wrong.is_empty() {
        bail!("{}", wrong.join("\n"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn control_characters_in_a_finding_are_escaped() {
        let finding =
            Finding::of("git /a\x1b]0;x\x07\nok      b", Err(anyhow!("\u{9b}2J \u{202e}\r gone")));
        assert_eq!(
            finding.to_string(),
            "WRONG   git /a\\x1b]0;x\\x07\\nok      b: \\u{9b}2J \\u{202e}\\r gone"
        );
    }

    #[test]
    fn a_finding_is_one_line_and_only_errors_fail() {
        let good =
            [Finding::of("a", Ok("there".to_owned())), Finding::warning("b", "is old\nvery old")];
        assert_eq!(good[1].to_string(), "warning b: is old; very old");
        assert!(conclude(&good).is_ok());
        let wrong = Finding::of("c", Err(anyhow!("is gone").context("cannot read /c")));
        assert_eq!(wrong.to_string(), "WRONG   c: cannot read /c: is gone");
        assert_eq!(
            conclude(&[wrong]).map_err(|error| error.to_string()),
            Err("c: cannot read /c: is gone".to_owned())
        );
    }
}
