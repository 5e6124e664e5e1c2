//! What is wrong with a configuration: every finding with its place, what is wrong, and what is
//! allowed instead.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::schema::Finding;

/// Everything that is wrong with a configuration, in the order of the file, what has no place there
/// last; never empty.
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

    /// The file could not be read at all.
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

    /// What is wrong with the file as a whole.
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

    /// The file it was read from.
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
            write!(f, " {}", one_line(&finding.message))?;
            if let Some(allowed) = &finding.allowed {
                write!(f, "; allowed: {}", one_line(allowed))?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// One finding is one line, and a terminal is not driven by what stands in a file.
fn one_line(text: &str) -> String {
    text.chars()
        .flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] })
        .collect()
}
