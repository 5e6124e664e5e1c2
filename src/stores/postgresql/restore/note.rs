//! What will not be as it was when the databases are restored.

use anyhow::Result;

use super::dumps::recorded;
use crate::config::Config;
use crate::runs::notes::note;
use crate::runs::restore::RestorePlan;
use crate::stores::postgresql::client::{Client, MAINTENANCE};
use crate::stores::postgresql::quoting::identifier;

/// The file of the dumps with roles, settings and privileges as text: nothing reads it but people.
const GLOBALS: &str = "globals.sql";

/// Notes tablespaces that this server does not have, and what an old run did not record.
pub(super) async fn not_as_before(config: &Config, plan: &RestorePlan) -> Result<()> {
    let (Some(part), Some(postgresql)) = (&plan.postgresql, &config.postgresql) else {
        return Ok(());
    };
    let Some(globals) = recorded(part)?.globals else {
        return note(format!(
            "this run is of an older gitlab-backup: roles that were not here, and settings and privileges of the databases, are not restored; they \
             stand in {GLOBALS} of the dumps ('restore --into DIR --only postgresql' lays it out)"
        ));
    };
    let session = Client::restoring(postgresql)?.insist(MAINTENANCE).await?;
    let missing: Vec<String> =
        globals.missing_tablespaces(&session).await?.iter().map(|name| identifier(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    note(format!(
        "this server has no tablespace {}: everything is in the default tablespace of its database ('ALTER TABLE … SET TABLESPACE' moves it)",
        missing.join(", ")
    ))
}
