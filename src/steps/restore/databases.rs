//! The databases of a restore: how they are named until they are in place, the renames, and back.

use anyhow::{Context, Result, bail, ensure};

use crate::config::{Config, Postgresql};
use crate::runs::record::read_json;
use crate::runs::restore::{Journal, Plan, StagedDatabase};
use crate::runs::{Manifest, Part};
use crate::steps::postgresql::Dumped;
use crate::steps::postgresql::client::{Client, identifier, major};
use crate::steps::postgresql::load::MAINTENANCE;
use crate::steps::postgresql::sandbox;
use crate::steps::postgresql::session::Session;

use super::{dump_directory, note};

/// What is longer makes a staged database's name too long for PostgreSQL.
const NAME_MAX: usize = 40;

/// Where text for people is that nothing of ours reads.
const GLOBALS: &str = "globals.sql";

/// As which OS user pg_restore runs: by a socket it is the role's name that counts.
pub(super) fn loads_as(postgresql: &Postgresql) -> &str {
    if postgresql.by_socket() { sandbox::NAME } else { &postgresql.restore_os_user }
}

/// What lies beside the dumps.
pub(super) fn told(part: &Part) -> Result<Dumped> {
    read_json(&dump_directory(part)?.join("postgresql.json"))?.context("the dumps have no postgresql.json")
}

/// Asks the server, and names the databases for the time until they are in place.
pub(super) async fn plan(config: &Config, manifest: &Manifest, part: &Part) -> Result<Vec<StagedDatabase>> {
    let postgresql = config.postgresql.as_ref().context("[postgresql] enable is false: --only redis,files restores without it")?;
    ensure!(
        !manifest.databases.is_empty(),
        "run {} does not tell its databases; 'restore --into DIR --only postgresql' lays their dumps out ({})",
        manifest.id,
        part.snapshot
    );
    let client = Client::restoring(postgresql)?;
    for program in ["pg_restore", "vacuumdb"] {
        let output = client.command_offline(program).arg("--version").output().await;
        ensure!(output.is_ok_and(|output| output.status.success()), "{program} cannot be run: install PostgreSQL's client programs");
    }
    let session = client.connect(MAINTENANCE).await?;
    let here = session.major;
    let there = manifest.versions.iter().find(|component| component.name == "postgresql").and_then(|component| major(&component.version));
    if let Some(there) = there.filter(|there| *there > here) {
        bail!("the run is of PostgreSQL {there}, and the server here is {here}: an older server cannot load it");
    }
    let there = names(&session).await?;
    let staged: Vec<StagedDatabase> = manifest
        .databases
        .iter()
        .enumerate()
        .map(|(index, database)| {
            let plain: String = database.name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).take(NAME_MAX).collect();
            let name = |word: &str| format!("{plain}_{word}_{index}");
            StagedDatabase { database: database.clone(), staged: name("restored"), replaced: name("replaced") }
        })
        .collect();
    // Those of an unfinished restore are put back or removed before they are made again.
    let known = Journal::load()?.map(|journal| journal.plan.databases).unwrap_or_default();
    let ours = |name: &String| known.iter().any(|database| [&database.staged, &database.replaced].contains(&name));
    let in_the_way: Vec<&String> = staged
        .iter()
        .flat_map(|database| [&database.staged, &database.replaced])
        .filter(|name| there.contains(name) && !ours(name))
        .collect();
    ensure!(in_the_way.is_empty(), "database {in_the_way:?} is in the way, and not made by an unfinished restore: rename or drop it");
    if sandbox::is_needed(&session).await? {
        sandbox::probe(&client, &session, loads_as(postgresql)).await?;
    }
    Ok(staged)
}

async fn names(session: &Session) -> Result<Vec<String>> {
    session.column("SELECT datname::text FROM pg_catalog.pg_database", &[]).await
}

/// Tells what will not be as it was: tablespaces that this server does not have, what a run of old did not record.
pub(super) async fn tell(config: &Config, plan: &Plan) -> Result<()> {
    let (Some(part), Some(postgresql)) = (&plan.postgresql, &config.postgresql) else { return Ok(()) };
    let Some(globals) = told(part)?.globals else {
        return note(format!(
            "this run is of an older gitlab-backup: roles that were not here, and settings and privileges of the databases, are not restored; they \
             stand in {GLOBALS} of the dumps ('restore --into DIR --only postgresql' lays it out)"
        ));
    };
    let session = Client::restoring(postgresql)?.connect(MAINTENANCE).await?;
    let missing: Vec<String> = globals.missing_tablespaces(&session).await?.iter().map(|name| identifier(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    note(format!(
        "this server has no tablespace {}: everything is in the default tablespace of its database ('ALTER TABLE … SET TABLESPACE' moves it)",
        missing.join(", ")
    ))
}

/// Renames all databases in one transaction: all are new, or none. Then each gets what belongs to its name.
pub(super) async fn put(config: &Config, plan: &Plan) -> Result<()> {
    let (Some(part), Some(postgresql)) = (&plan.postgresql, &config.postgresql) else { return Ok(()) };
    if plan.databases.is_empty() {
        return Ok(());
    }
    let session = Client::restoring(postgresql)?.connect(MAINTENANCE).await?;
    let there = names(&session).await?;
    let mut statements = Vec::new();
    for database in &plan.databases {
        let live = &database.database.name;
        if there.contains(live) {
            statements.push(rename(live, &database.replaced));
        }
        statements.push(rename(&database.staged, live));
    }
    alone(&session, plan).await?;
    session.transaction(&statements).await.context("cannot rename the databases")?;
    let Some(globals) = told(part)?.globals else { return Ok(()) };
    for database in &plan.databases {
        for missing in globals.adorn(&session, &database.database.name).await? {
            note(missing)?;
        }
    }
    Ok(())
}

/// Puts the databases back under the names that they had.
pub(super) async fn back(config: &Config, plan: &Plan) -> Result<()> {
    let Some(postgresql) = config.postgresql.as_ref().filter(|_| !plan.databases.is_empty()) else { return Ok(()) };
    let session = Client::restoring(postgresql)?.connect(MAINTENANCE).await?;
    let there = names(&session).await?;
    let mut statements = Vec::new();
    for database in &plan.databases {
        let live = &database.database.name;
        // The new one is in place if it is not beside.
        if !there.contains(&database.staged) && there.contains(live) {
            statements.push(rename(live, &database.staged));
        }
        if there.contains(&database.replaced) {
            statements.push(rename(&database.replaced, live));
        }
    }
    if statements.is_empty() {
        return Ok(());
    }
    alone(&session, plan).await?;
    session.transaction(&statements).await.context("cannot rename the databases back")
}

/// Drops databases that are ours, and the role that one of them may still belong to.
pub(super) async fn drop(config: &Config, names: &[&str]) -> Result<()> {
    let Some(postgresql) = config.postgresql.as_ref().filter(|_| !names.is_empty()) else { return Ok(()) };
    let session = Client::restoring(postgresql)?.connect(MAINTENANCE).await?;
    end(&session, names).await?;
    for name in names {
        let sql = format!("DROP DATABASE IF EXISTS {}", identifier(name));
        session.run(&sql).await.with_context(|| format!("cannot drop database '{name}'"))?;
    }
    if sandbox::is_needed(&session).await? { sandbox::retire(&session).await } else { Ok(()) }
}

fn rename(from: &str, to: &str) -> String {
    format!("ALTER DATABASE {} RENAME TO {}", identifier(from), identifier(to))
}

/// Ends the sessions of others in these databases, of a monitoring system for example: a database in use cannot be renamed.
async fn alone(session: &Session, plan: &Plan) -> Result<()> {
    let names: Vec<&str> = plan
        .databases
        .iter()
        .flat_map(|database| [&database.database.name, &database.staged, &database.replaced])
        .map(String::as_str)
        .collect();
    end(session, &names).await
}

async fn end(session: &Session, names: &[&str]) -> Result<()> {
    let sql = "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity \
        WHERE datname = ANY($1::text[]) AND pid <> pg_catalog.pg_backend_pid()";
    session.rows(sql, &[&names]).await.map(|_| ())
}
