//! What is wrong with a configuration: all of it, each with its place.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Everything that is wrong with one file.
#[derive(Debug)]
pub struct ConfigError {
    file: PathBuf,
    findings: Vec<Finding>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// From 1; none where no line is to blame.
    pub place: Option<(usize, usize)>,
    /// Such as `postgresql.port` or `step[1].command`; empty where no key is to blame.
    pub key: String,
    /// What is wrong and what is allowed.
    pub message: String,
}

impl ConfigError {
    pub(super) fn new(file: &Path, findings: Vec<Finding>) -> Self {
        Self { file: file.to_owned(), findings }
    }

    pub(super) fn general(file: &Path, message: String) -> Self {
        Self::new(file, vec![Finding { place: None, key: String::new(), message }])
    }

    /// All findings, in the order of the file's sections.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, finding) in self.findings.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}", self.file.display())?;
            if let Some((line, column)) = finding.place {
                write!(f, ":{line}:{column}")?;
            }
            if !finding.key.is_empty() {
                write!(f, ": {}", finding.key)?;
            }
            write!(f, ": {}", finding.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// Line and column (in characters) of a byte span, from 1.
pub(super) fn place(text: &str, span: &Range<usize>) -> (usize, usize) {
    let before = text.get(..span.start).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    (line, column)
}
