//! The databases of a restore: how they are named until they are in place, how they are made and
//! removed.

pub(super) mod exchange;

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio::time::sleep;

use crate::accounts;
use crate::config::{Config, Postgresql};
use crate::paths::RootDirectory;
use crate::runs::record::read_json;
use crate::runs::restore::{Journal, Leftover, RestorePlan, StagedDatabase, Thing};
use crate::runs::{Database, Manifest, Part};
use crate::stores::postgresql::client::{Client, LOADING, MAINTENANCE, OURS};
use crate::stores::postgresql::quoting::{identifier, literal};
use crate::stores::postgresql::session::Session;
use crate::stores::postgresql::versions::major;
use crate::stores::postgresql::{Dumped, sandbox};

use super::{dump_directory, note};

/// What is longer makes a staged database's name too long for PostgreSQL.
const NAME_MAX: usize = 40;

/// How long others that are in a database, or come back into it, are sent away, and how long our
/// own may take to end. A session that computes may look at nothing else for as long as it likes:
/// then the restore fails with its number.
const PATIENCE: Duration = Duration::from_secs(30);
const ENDS: u32 = 600;
const PAUSE: Duration = Duration::from_millis(100);

/// Where text for people is that nothing of ours reads.
const GLOBALS: &str = "globals.sql";

/// What keeps a database from being renamed and dropped, and no session's end ends: prepared in it,
/// or elsewhere with a lock on it.
const PREPARED: &str = "SELECT 'prepared transaction ' || x.gid FROM pg_catalog.pg_prepared_xacts x WHERE x.database = $1::text \
    OR EXISTS (SELECT FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_database d ON d.oid = l.objid WHERE d.datname = $1::text \
      AND l.classid = 'pg_catalog.pg_database'::pg_catalog.regclass AND l.virtualtransaction = '-1/' || x.transaction::text)";

/// As which OS user pg_restore runs: by a socket it is the role's name that counts.
pub(super) fn loads_as(postgresql: &Postgresql) -> &str {
    if postgresql.by_socket() { accounts::LOADER } else { &postgresql.restore_os_user }
}

/// What lies beside the dumps.
pub(super) fn told(part: &Part) -> Result<Dumped> {
    read_json(&dump_directory(part)?.join("postgresql.json"))?
        .context("the dumps have no postgresql.json")
}

/// Asks the server, and names the databases for the time until they are in place.
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
    for program in ["pg_restore", "vacuumdb"] {
        let output = client.command_offline(program).arg("--version").output().await;
        ensure!(
            output.is_ok_and(|output| output.status.success()),
            "{program} cannot be run: install PostgreSQL's client programs"
        );
    }
    let session = client.connect(MAINTENANCE).await?;
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
    let there = numbers(&session).await?;
    unprepared(&session, manifest.databases.iter().map(|database| &database.name)).await?;
    // What an earlier restore could not remove keeps its name.
    let left = Leftover::load(&RootDirectory::host())?;
    let left = |name: &String| {
        left.iter()
            .any(|left| matches!(&left.thing, Thing::Database { name: other, .. } if other == name))
    };
    let staged: Vec<StagedDatabase> = manifest
        .databases
        .iter()
        .enumerate()
        .map(|(index, database)| {
            let plain: String = database
                .name
                .chars()
                .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
                .take(NAME_MAX)
                .collect();
            let name = |word: &str| {
                let numbered = |number: usize| format!("{plain}_{word}_{number}");
                // By whole rounds: no two databases of a run come to the same.
                (index..)
                    .step_by(manifest.databases.len())
                    .map(numbered)
                    .find(|name| !left(name))
                    .unwrap_or_else(|| numbered(index))
            };
            // It travels as a credential, of a mebibyte at most, and needs no names of tables.
            let database = Database { tables: BTreeMap::new(), ..database.clone() };
            StagedDatabase {
                database,
                staged: name("restored"),
                replaced: name("replaced"),
                numbers: None,
            }
        })
        .collect();
    // Those of an unfinished restore are put back or removed before they are made again.
    let known = Journal::load(&RootDirectory::host())?
        .map(|journal| journal.plan.databases)
        .unwrap_or_default();
    let ours = |name: &String| {
        known.iter().any(|database| [&database.staged, &database.replaced].contains(&name))
    };
    let marked = marked(&session).await?;
    let in_the_way: Vec<&String> = staged
        .iter()
        .flat_map(|database| [&database.staged, &database.replaced])
        .filter(|name| there.contains_key(*name) && !ours(name) && !marked.contains(name))
        .collect();
    ensure!(
        in_the_way.is_empty(),
        "database {in_the_way:?} is in the way, and not made by an unfinished restore: rename or drop it"
    );
    if sandbox::is_needed(&session).await? {
        sandbox::probe(&client, &session, loads_as(postgresql)).await?;
    }
    Ok(staged)
}

/// Fails with a transaction that is prepared in one of these databases: nobody's end ends it.
async fn unprepared(session: &Session, names: impl Iterator<Item = &String>) -> Result<()> {
    for name in names {
        let prepared: Vec<String> = session.column(PREPARED, &[name]).await?;
        ensure!(
            prepared.is_empty(),
            "database '{name}' is held by {}, so it cannot be renamed: COMMIT PREPARED or ROLLBACK PREPARED in it",
            prepared.join(", ")
        );
    }
    Ok(())
}

/// Every database by its name, and the server's own number of it.
async fn numbers(session: &Session) -> Result<HashMap<String, u32>> {
    let rows = session.rows("SELECT datname::text, oid FROM pg_catalog.pg_database", &[]).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// The databases that a restore has laid out, by their comment.
async fn marked(session: &Session) -> Result<Vec<String>> {
    let sql = "SELECT datname::text FROM pg_catalog.pg_database WHERE pg_catalog.shobj_description(oid, 'pg_database') = $1::text";
    session.column(sql, &[&OURS]).await
}

/// Marks a database that is laid out as ours.
pub(super) async fn mark(session: &Session, name: &str) -> Result<()> {
    session.run(&format!("COMMENT ON DATABASE {} IS {}", identifier(name), literal(OURS))).await
}

/// Removes what is marked as ours under the names that this restore is going to use, and no journal
/// knows any more.
pub(super) async fn clear(config: &Config, plan: &RestorePlan) -> Result<()> {
    let Some(postgresql) = config.postgresql.as_ref().filter(|_| !plan.databases.is_empty()) else {
        return Ok(());
    };
    let session = Client::restoring(postgresql)?.insist(MAINTENANCE).await?;
    end_ours(&session).await?;
    let marked = marked(&session).await?;
    for database in plan.databases.iter().filter(|database| marked.contains(&database.staged)) {
        drop_one(&session, &database.staged, None).await?;
    }
    Ok(())
}

/// Tells what will not be as it was: tablespaces that this server does not have, what a run of old
/// did not record.
pub(super) async fn tell(config: &Config, plan: &RestorePlan) -> Result<()> {
    let (Some(part), Some(postgresql)) = (&plan.postgresql, &config.postgresql) else {
        return Ok(());
    };
    let Some(globals) = told(part)?.globals else {
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

/// Drops what was laid out, and the role that one of them may still belong to. Sessions of a
/// restore that was killed are ended first: one of them may just be making a database.
pub(super) async fn unmake(config: &Config, plan: &RestorePlan) -> Result<()> {
    let Some(postgresql) = config.postgresql.as_ref().filter(|_| !plan.databases.is_empty()) else {
        return Ok(());
    };
    let session = Client::restoring(postgresql)?.insist(MAINTENANCE).await?;
    end_ours(&session).await?;
    for database in &plan.databases {
        drop_one(&session, &database.staged, database.numbers.map(|numbers| numbers.new)).await?;
    }
    if sandbox::is_needed(&session).await? { sandbox::retire(&session).await } else { Ok(()) }
}

/// Drops the database that was put aside under this name.
///
/// # Errors
/// With what holds it.
pub(super) async fn forget(config: &Config, name: &str, number: Option<u32>) -> Result<()> {
    let Some(postgresql) = &config.postgresql else { bail!("[postgresql] enable is false") };
    drop_one(&Client::restoring(postgresql)?.insist(MAINTENANCE).await?, name, number).await
}

/// Marks what is left of one that was replaced, if it is the one of this number: nothing but its
/// removal awaits it.
pub(super) async fn disown(config: &Config, name: &str, number: Option<u32>) -> Result<()> {
    let Some(postgresql) = &config.postgresql else { return Ok(()) };
    let session = Client::restoring(postgresql)?.insist(MAINTENANCE).await?;
    let is_it = number.is_some() && numbers(&session).await?.get(name).copied() == number;
    if is_it { mark(&session, name).await } else { Ok(()) }
}

/// Removes the role as which the dumps were loaded.
pub(super) async fn retire(config: &Config) -> Result<()> {
    let Some(postgresql) = &config.postgresql else { return Ok(()) };
    let session = Client::restoring(postgresql)?.insist(MAINTENANCE).await?;
    if sandbox::is_needed(&session).await? { sandbox::retire(&session).await } else { Ok(()) }
}

/// Drops the database of this name if it is marked as ours, with the sessions that a killed restore
/// has left.
pub(super) async fn drop_ours(session: &Session, name: &str) -> Result<()> {
    if marked(session).await?.iter().any(|marked| marked == name) {
        drop_one(session, name, None).await
    } else {
        Ok(())
    }
}

/// Drops one, if it is the one of this number, with all sessions in it. That it is gone is no
/// failure.
async fn drop_one(session: &Session, name: &str, number: Option<u32>) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    loop {
        let Some(found) = numbers(session).await?.get(name).copied() else { return Ok(()) };
        ensure!(
            number.is_none_or(|number| number == found),
            "database '{name}' is another than the one that was ours: it stays"
        );
        if session
            .value::<bool>("SELECT EXISTS (SELECT FROM pg_catalog.pg_database WHERE datname = $1::text AND datistemplate)", &[&name])
            .await?
        {
            session.run(&format!("ALTER DATABASE {} IS_TEMPLATE false", identifier(name))).await?;
        }
        let force = if session.major >= 13 { " WITH (FORCE)" } else { "" };
        if force.is_empty() {
            end(session, &[name]).await?;
        }
        match session
            .run_with_all(&format!("DROP DATABASE IF EXISTS {}{force}", identifier(name)))
            .await
        {
            Ok(()) => return Ok(()),
            Err(error) => {
                let holders = holders(session, name).await;
                let only_sessions = holders.iter().all(|holder| holder.starts_with("session"));
                if Instant::now() >= until || !only_sessions {
                    return Err(error.context(match holders.is_empty() {
                        true => format!("cannot drop database '{name}'"),
                        false => {
                            format!("cannot drop database '{name}', held by {}", holders.join(", "))
                        }
                    }));
                }
            }
        }
        sleep(PAUSE).await;
    }
}

/// What keeps a database from being dropped or renamed, as far as the server tells it to us.
async fn holders(session: &Session, name: &str) -> Vec<String> {
    let queries = [
        "SELECT 'subscription ' || s.subname FROM pg_catalog.pg_subscription s JOIN pg_catalog.pg_database d ON d.oid = s.subdbid \
         WHERE d.datname = $1::text",
        PREPARED,
        "SELECT 'replication slot ' || slot_name FROM pg_catalog.pg_replication_slots WHERE database = $1::text",
        "SELECT 'session ' || l.pid || ' of ' || coalesce(a.usename, '?') || ' (a lock, from ' || coalesce(a.datname, '?') || ')' \
         FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_database d ON d.oid = l.objid LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid \
         WHERE d.datname = $1::text AND l.locktype = 'object' AND l.classid = 'pg_catalog.pg_database'::pg_catalog.regclass AND l.granted \
           AND l.pid <> pg_catalog.pg_backend_pid()",
        "SELECT 'session ' || pid || ' of ' || coalesce(usename, '?') || ' (' || coalesce(application_name, '') || ')' \
         FROM pg_catalog.pg_stat_activity WHERE datname = $1::text AND pid <> pg_catalog.pg_backend_pid()",
    ];
    let mut found = Vec::new();
    for sql in queries {
        match session.column::<String>(sql, &[&name]).await {
            Ok(some) => found.extend(some),
            Err(error) => tracing::debug!("{error:#}"),
        }
    }
    found
}

/// Ends the sessions that laid out for a restore, and waits until they have.
async fn end_ours(session: &Session) -> Result<()> {
    let sql = "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity \
        WHERE application_name = $1::text AND pid <> pg_catalog.pg_backend_pid() AND usename IN (current_user, $2::text)";
    for _ in 0..ENDS {
        // Anybody may call himself so.
        if session.rows(sql, &[&LOADING, &accounts::LOADER]).await?.is_empty() {
            return Ok(());
        }
        sleep(PAUSE).await;
    }
    bail!("a session of '{LOADING}' does not end: look at pg_stat_activity")
}

async fn end(session: &Session, names: &[&str]) -> Result<()> {
    let sql = "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity \
        WHERE datname = ANY($1::text[]) AND pid <> pg_catalog.pg_backend_pid()";
    session.rows(sql, &[&names]).await.map(|_| ())
}
