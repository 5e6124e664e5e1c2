//! Notes for the admin about what a restore of the databases cannot restore.

use anyhow::Result;

use super::dumps::read_record;
use crate::config::Config;
use crate::paths::RootDirectory;
use crate::runs::notes::note;
use crate::runs::restore::RestorePlan;
use crate::stores::postgresql::client::{Client, MAINTENANCE};
use crate::stores::postgresql::quoting::identifier;

/// The file with the roles, settings and privileges as text, for people.
const GLOBALS: &str = "globals.sql";

/// Notes the tablespaces that this server does not have, and what the run of an old version lacks.
pub(super) async fn note_differences(
    config: &Config,
    root: &RootDirectory,
    plan: &RestorePlan,
) -> Result<()> {
    let (Some(part), Some(postgresql)) = (&plan.postgresql, &config.postgresql) else {
        return Ok(());
    };
    let Some(globals) = read_record(root, part)?.globals else {
        let words = format!(
            "this run was made by an older gitlab-backup: missing roles, and the settings and \
             privileges of the databases, are not restored; they \
             are in the file {GLOBALS} beside the dumps ('restore --into DIR --only postgresql' \
             extracts it)"
        );
        return note(root, words);
    };
    let session = Client::restoring(postgresql)?.connect_ending_blockers(MAINTENANCE).await?;
    let missing: Vec<String> =
        globals.missing_tablespaces(&session).await?.iter().map(|name| identifier(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let words = format!(
        "this server has no tablespace {}: everything is in the default tablespace of its database \
         ('ALTER TABLE … SET TABLESPACE' moves it)",
        missing.join(", ")
    );
    note(root, words)
}
