//! The name of a run.

use std::fmt;
use std::str::FromStr;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

/// The name of a run: its start in UTC and four hexadecimal digits, `20261124T023000Z-8f3c`. Names
/// sort by time, and are valid as file names, systemd arguments and repository tags.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RunId(String);

impl RunId {
    /// The name of a run that starts `at`. `salt` distinguishes runs that start in the same second.
    pub fn new(at: jiff::Timestamp, salt: u16) -> Self {
        Self(format!("{}-{salt:04x}", at.strftime("%Y%m%dT%H%M%SZ")))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for RunId {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let shape = |c: (usize, u8)| match c.0 {
            8 => c.1 == b'T',
            15 => c.1 == b'Z',
            16 => c.1 == b'-',
            17.. => c.1.is_ascii_digit() || (b'a'..=b'f').contains(&c.1),
            _ => c.1.is_ascii_digit(),
        };
        ensure!(
            text.len() == 21 && text.bytes().enumerate().all(shape),
            "'{text}' is not a run: expected something like 20261124T023000Z-8f3c (see \
             'gitlab-backup list')"
        );
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for RunId {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<RunId> for String {
    fn from(run: RunId) -> Self {
        run.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_other_text_is_refused() {
        let at: jiff::Timestamp = "2026-11-24T02:30:00Z".parse().unwrap();
        let run = RunId::new(at, 0x8f3c);
        assert_eq!(run.as_str(), "20261124T023000Z-8f3c");
        assert_eq!(run.as_str().parse::<RunId>().unwrap(), run);
        for bad in [
            "",
            "latest",
            "20261124T023000Z-8F3C",
            "../20261124T023000Z-",
            "20261124T023000Z-8f3c0",
        ] {
            assert!(bad.parse::<RunId>().is_err(), "{bad}");
        }
    }
}
