//! Plans the restore of the databases: checks the server, and chooses the temporary names.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};

use super::databases::{ensure_no_prepared, list_marked, oids};
use super::dumps::loading_user;
use crate::config::Config;
use crate::paths::RootDirectory;
use crate::runs::restore::{Leftover, RestoreJournal, StagedDatabase, Thing};
use crate::runs::{Database, Manifest};
use crate::stores::postgresql::client::{Client, MAINTENANCE};
use crate::stores::postgresql::session::Session;
use crate::stores::postgresql::versions::major;
use crate::stores::postgresql::{POSTGRESQL, sandbox};
use crate::stores::restoration::Asked;

/// How many characters of a database's name the name of the staged database starts with. PostgreSQL
/// allows 63 in all.
const NAME_MAX: usize = 40;

/// Checks whether this server can restore the databases of the run, and chooses the names of the
/// staged and of the replaced databases.
pub(super) async fn plan(
    config: &Config,
    root: &RootDirectory,
    asked: &Asked<'_>,
) -> Result<Vec<StagedDatabase>> {
    let Asked { manifest, part, .. } = *asked;
    let postgresql = config
        .postgresql
        .as_ref()
        .context("[postgresql] enable is false: --only redis,files restores without it")?;
    ensure!(
        !manifest.databases.is_empty(),
        "the manifest of run {} lists no databases; 'restore --into DIR --only postgresql' \
         extracts the dumps ({})",
        manifest.id,
        part.snapshot
    );
    let client = Client::restoring(postgresql)?;
    ensure_programs(&client).await?;
    let session = client.connect(MAINTENANCE).await?;
    ensure_new_enough(&session, manifest)?;
    let names = manifest.databases.iter().map(|database| &database.name);
    ensure_no_prepared(&session, names).await?;
    let staged = name_databases(manifest, root)?;
    ensure_names_free(&session, &staged, root).await?;
    if sandbox::is_needed(&session).await? {
        sandbox::ensure_can_connect(&client, &session, loading_user(postgresql)).await?;
    }
    Ok(staged)
}

/// Fails if the client programs that load a dump are not installed.
async fn ensure_programs(client: &Client) -> Result<()> {
    for program in ["pg_restore", "vacuumdb"] {
        let output = client.command_offline(program).arg("--version").output().await;
        ensure!(
            output.is_ok_and(|output| output.status.success()),
            "cannot run {program}: install PostgreSQL's client programs"
        );
    }
    Ok(())
}

/// Fails if the run is of a newer server than this one.
fn ensure_new_enough(session: &Session, manifest: &Manifest) -> Result<()> {
    let here = session.major;
    let there = manifest.version(POSTGRESQL).and_then(major);
    if let Some(there) = there.filter(|there| *there > here) {
        bail!(
            "the run is of PostgreSQL {there}, and the server here is {here}: an older server \
             cannot load it"
        );
    }
    Ok(())
}

/// The databases of a run, each with a name for the staged and one for the replaced database. The
/// names differ from each other, and from those of databases that an earlier restore could not
/// drop.
fn name_databases(manifest: &Manifest, root: &RootDirectory) -> Result<Vec<StagedDatabase>> {
    let leftovers = Leftover::load(root)?;
    let is_leftover = |name: &String| {
        leftovers
            .iter()
            .any(|left| matches!(&left.thing, Thing::Database { name: other, .. } if other == name))
    };
    let count = manifest.databases.len();
    let stage = |(index, database): (usize, &Database)| {
        let plain: String = database
            .name
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
            .take(NAME_MAX)
            .collect();
        // With steps of `count`, no two databases of the run get the same number.
        let name = |word: &str| {
            let numbered = |number: usize| format!("{plain}_{word}_{number}");
            (index..)
                .step_by(count)
                .map(numbered)
                .find(|name| !is_leftover(name))
                .unwrap_or_else(|| numbered(index))
        };
        StagedDatabase {
            // Without the tables, which are not needed: units get the plan as a credential, which
            // may have one MiB at most.
            database: Database { tables: BTreeMap::new(), ..database.clone() },
            staged: name("restored"),
            replaced: name("replaced"),
            numbers: None,
        }
    };
    Ok(manifest.databases.iter().enumerate().map(stage).collect())
}

/// Fails if there is a database with one of the names that no restore has created.
async fn ensure_names_free(
    session: &Session,
    staged: &[StagedDatabase],
    root: &RootDirectory,
) -> Result<()> {
    // The databases of an unfinished restore are removed before the names are used again.
    let unfinished =
        RestoreJournal::load(root)?.map(|journal| journal.plan.databases).unwrap_or_default();
    let is_unfinished = |name: &String| {
        unfinished.iter().any(|database| [&database.staged, &database.replaced].contains(&name))
    };
    let (existing, marked) = (oids(session).await?, list_marked(session).await?);
    let in_the_way: Vec<&String> = staged
        .iter()
        .flat_map(|database| [&database.staged, &database.replaced])
        .filter(|name| {
            existing.contains_key(*name) && !is_unfinished(name) && !marked.contains(name)
        })
        .collect();
    ensure!(
        in_the_way.is_empty(),
        "database {in_the_way:?} is in the way, and was not created by an unfinished restore: \
         rename or drop it"
    );
    Ok(())
}
