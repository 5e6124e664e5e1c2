//! Extracts the dumps from the repository, for the units of the stores that load them.

use anyhow::Result;

use crate::config::Config;
use crate::paths::RootDirectory;
use crate::stores::restoration;
use crate::systemd::notify;

/// Extracts the dumps that the plan needs, and gives them to the accounts that load them.
pub fn extract_dumps(config: &Config, root: &RootDirectory) -> Result<()> {
    let plan = restoration::plan(root)?;
    notify::status("extracting the dumps");
    let stores = restoration::all(config, root);
    stores.iter().try_for_each(|store| store.extract_dumps(&plan))?;
    stores.iter().try_for_each(|store| store.hand_over_dumps(&plan))
}
