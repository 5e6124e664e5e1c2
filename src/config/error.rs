//! The errors of a configuration: each with its place in the file, what is wrong, and what is
//! allowed instead.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::schema::Problem;

/// All errors of a configuration, in the order of the file; errors without a line come last. Never
/// empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    source: PathBuf,
    findings: Vec<Problem>,
}

impl ConfigError {
    pub(super) fn new(source: &Path, mut findings: Vec<Problem>) -> Self {
        findings.sort_by_key(|finding| (finding.line.is_none(), finding.line, finding.column));
        Self { source: source.to_owned(), findings }
    }

    /// The error for a file that cannot be read.
    pub(super) fn unreadable(source: &Path, error: &std::io::Error) -> Self {
        let message = match error.kind() {
            std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
            _ => format!("cannot be read: {error}"),
        };
        Self::general(
            source,
            message,
            Some("a readable TOML file; --config FILE selects another one".to_owned()),
        )
    }

    /// An error of the whole file.
    pub(super) fn general(source: &Path, message: String, allowed: Option<String>) -> Self {
        Self {
            source: source.to_owned(),
            findings: vec![Problem {
                line: None,
                column: None,
                key: String::new(),
                message,
                allowed,
            }],
        }
    }

    /// The configuration file.
    pub fn source_file(&self) -> &Path {
        &self.source
    }

    /// The findings, in the order of the file.
    pub fn findings(&self) -> &[Problem] {
        &self.findings
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, finding) in self.findings.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{}:", self.source.display())?;
            if let (Some(line), Some(column)) = (finding.line, finding.column) {
                write!(f, "{line}:{column}:")?;
            }
            if !finding.key.is_empty() {
                write!(f, " {}:", finding.key)?;
            }
            write!(f, " {}", escape_controls(&finding.message))?;
            if let Some(allowed) = &finding.allowed {
                write!(f, "; allowed: {}", escape_controls(allowed))?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// Escapes control characters: a finding is one line, and must not send escape sequences to the
/// terminal.
fn escape_controls(text: &str) -> String {
    text.chars()
        .flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] })
        .collect()
}
