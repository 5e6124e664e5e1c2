//! Extracts the dumps from the repository, for the units of the stores that load them.

use anyhow::Result;

use crate::config::Config;
use crate::stores::restoration;
use crate::systemd::notify;

/// Extracts the dumps that the plan needs.
pub fn extract_dumps(config: &Config) -> Result<()> {
    let plan = restoration::plan()?;
    notify::status("extracting the dumps");
    restoration::all(config).iter().try_for_each(|store| store.extract_dumps(&plan))
}
