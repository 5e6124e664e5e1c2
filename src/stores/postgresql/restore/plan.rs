//! Whether the databases of a run can be restored on this server, and under which names they are
//! created until they are in place.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};

use super::databases::{marked, numbers, unprepared};
use super::dumps::loads_as;
use crate::config::Config;
use crate::paths::RootDirectory;
use crate::runs::restore::{Journal, Leftover, StagedDatabase, Thing};
use crate::runs::{Database, Manifest, Part};
use crate::stores::postgresql::client::{Client, MAINTENANCE};
use crate::stores::postgresql::sandbox;
use crate::stores::postgresql::session::Session;
use crate::stores::postgresql::versions::major;

/// Characters of a database's name that a staged database's name begins with: PostgreSQL takes 63
/// in all.
const NAME_MAX: usize = 40;

/// Checks the server, and names the staged databases.
pub(super) async fn plan(
    config: &Config,
    manifest: &Manifest,
    part: &Part,
) -> Result<Vec<StagedDatabase>> {
    let postgresql = config
        .postgresql
        .as_ref()
        .context("[postgresql] enable is false: --only redis,files restores without it")?;
    ensure!(
        !manifest.databases.is_empty(),
        "run {} does not tell its databases; 'restore --into DIR --only postgresql' lays their dumps out ({})",
        manifest.id,
        part.snapshot
    );
    let client = Client::restoring(postgresql)?;
    ensure_programs(&client).await?;
    let session = client.connect(MAINTENANCE).await?;
    ensure_new_enough(&session, manifest)?;
    unprepared(&session, manifest.databases.iter().map(|database| &database.name)).await?;
    let staged = staged(manifest)?;
    ensure_free(&session, &staged).await?;
    if sandbox::is_needed(&session).await? {
        sandbox::probe(&client, &session, loads_as(postgresql)).await?;
    }
    Ok(staged)
}

/// Fails if the client programs that load a dump are not installed.
async fn ensure_programs(client: &Client) -> Result<()> {
    for program in ["pg_restore", "vacuumdb"] {
        let output = client.command_offline(program).arg("--version").output().await;
        ensure!(
            output.is_ok_and(|output| output.status.success()),
            "{program} cannot be run: install PostgreSQL's client programs"
        );
    }
    Ok(())
}

/// Fails if the run is of a newer server than this one.
fn ensure_new_enough(session: &Session, manifest: &Manifest) -> Result<()> {
    let here = session.major;
    let there = manifest
        .versions
        .iter()
        .find(|component| component.name == "postgresql")
        .and_then(|component| major(&component.version));
    if let Some(there) = there.filter(|there| *there > here) {
        bail!(
            "the run is of PostgreSQL {there}, and the server here is {here}: an older server cannot load it"
        );
    }
    Ok(())
}

/// The databases of the run, with names that none of them shares with another or with what an
/// earlier restore could not drop.
fn staged(manifest: &Manifest) -> Result<Vec<StagedDatabase>> {
    let left = Leftover::load(&RootDirectory::host())?;
    let is_left = |name: &String| {
        left.iter()
            .any(|left| matches!(&left.thing, Thing::Database { name: other, .. } if other == name))
    };
    let count = manifest.databases.len();
    let staged = |(index, database): (usize, &Database)| {
        let plain: String = database
            .name
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
            .take(NAME_MAX)
            .collect();
        // In steps of the count, no two databases of the run come to the same number.
        let name = |word: &str| {
            let numbered = |number: usize| format!("{plain}_{word}_{number}");
            (index..)
                .step_by(count)
                .map(numbered)
                .find(|name| !is_left(name))
                .unwrap_or_else(|| numbered(index))
        };
        StagedDatabase {
            // The plan becomes a credential, of one MiB at most, and needs no tables.
            database: Database { tables: BTreeMap::new(), ..database.clone() },
            staged: name("restored"),
            replaced: name("replaced"),
            numbers: None,
        }
    };
    Ok(manifest.databases.iter().enumerate().map(staged).collect())
}

/// Fails if a database has one of the names, and no restore has created it.
async fn ensure_free(session: &Session, staged: &[StagedDatabase]) -> Result<()> {
    // An unfinished restore is undone before the names are used again.
    let known = Journal::load(&RootDirectory::host())?
        .map(|journal| journal.plan.databases)
        .unwrap_or_default();
    let is_known = |name: &String| {
        known.iter().any(|database| [&database.staged, &database.replaced].contains(&name))
    };
    let (there, marked) = (numbers(session).await?, marked(session).await?);
    let in_the_way: Vec<&String> = staged
        .iter()
        .flat_map(|database| [&database.staged, &database.replaced])
        .filter(|name| there.contains_key(*name) && !is_known(name) && !marked.contains(name))
        .collect();
    ensure!(
        in_the_way.is_empty(),
        "database {in_the_way:?} is in the way, and not made by an unfinished restore: rename or drop it"
    );
    Ok(())
}
