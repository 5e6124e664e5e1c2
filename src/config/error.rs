//! The errors of a configuration: each with its place in the file, what is wrong, and what is
//! allowed instead.

use std::fmt;
use std::path::{Path, PathBuf};

/// One error of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Counted from 1; `None` for an error of the whole file.
    pub line: Option<usize>,
    /// Counted from 1, in characters.
    pub column: Option<usize>,
    /// The key's path, `postgresql.port` or `step[1].command`; empty for an error of the whole
    /// file.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What is allowed instead.
    pub allowed: Option<String>,
}

/// All errors of a configuration, in the order of the file; errors without a line come last. Never
/// empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    source: PathBuf,
    findings: Vec<Finding>,
}

impl ConfigError {
    pub(super) fn new(source: &Path, mut findings: Vec<Finding>) -> Self {
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
            Some("a readable TOML file; --config FILE names another".to_owned()),
        )
    }

    /// An error of the whole file.
    pub(super) fn general(source: &Path, message: String, allowed: Option<String>) -> Self {
        Self {
            source: source.to_owned(),
            findings: vec![Finding {
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
    pub fn findings(&self) -> &[Finding] {
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

/// Line and column, counted from 1, of the byte at `offset`.
pub(super) fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset.min(text.len())).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (
        before.matches('\n').count() + 1,
        before.get(line_start..).unwrap_or_default().chars().count() + 1,
    )
}
