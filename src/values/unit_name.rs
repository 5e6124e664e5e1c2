//! Names of units in a configuration: those of GitLab, and those of the proxies.

use std::fmt;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

/// The name of a unit, valid according to systemd.unit(5).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UnitName(String);

/// The unit types that can be stopped and started, systemd.unit(5).
const SUFFIXES: [&str; 8] =
    ["service", "socket", "target", "timer", "path", "mount", "slice", "scope"];

impl UnitName {
    /// The names as text.
    pub fn texts(units: &[Self]) -> Vec<String> {
        units.iter().map(ToString::to_string).collect()
    }

    /// Validates `name`.
    ///
    /// # Errors
    /// If `name` is invalid, or is a template; the message says what is allowed.
    pub fn new(name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.@:\\".contains(c);
        let (stem, suffix) = name.rsplit_once('.').unwrap_or((&name, ""));
        ensure!(
            SUFFIXES.contains(&suffix) && !stem.is_empty(),
            "'{name}' is not the full name of a unit: it must end in one of .{}",
            SUFFIXES.join(", .")
        );
        ensure!(
            name.len() <= 255 && name.chars().all(allowed),
            "'{name}' is not a unit name: letters, digits and -_.@:\\ are allowed, 255 at most"
        );
        ensure!(!stem.ends_with('@'), "'{name}' is a template: name an instance of it");
        Ok(Self(name))
    }

    /// The name of a generated unit, which is always valid.
    pub(crate) fn generated(name: String) -> Self {
        debug_assert!(Self::new(name.clone()).is_ok());
        Self(name)
    }

    /// Whether a unit of this type has processes.
    pub fn has_processes(&self) -> bool {
        [".service", ".scope"].iter().any(|kind| self.0.ends_with(kind))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UnitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for UnitName {
    type Error = anyhow::Error;

    fn try_from(name: String) -> Result<Self> {
        Self::new(name)
    }
}

impl From<UnitName> for String {
    fn from(name: UnitName) -> Self {
        name.0
    }
}
