//! Holds an exported snapshot of every database, and its tables as they are, for as long as it is
//! not dumped.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_postgres::error::SqlState;

use crate::config::Config;
use crate::paths;
use crate::runs::record::write_json;
use crate::systemd::{Manager, ServiceManager, notify};
use crate::units::Unit;

use super::client::Client;
use super::queue::Queue;
use super::session::{self, Session};
use super::{Held, HeldDatabase, Holder, dumped};

const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
/// What is locked before the snapshot is taken, until it is dumped: TRUNCATE and what rewrites a
/// table take its rows from every snapshot.
const TABLES: &str = "SELECT c.oid, pg_catalog.format('%I.%I', n.nspname, c.relname) \
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_' ORDER BY c.oid";
/// How often the tables may change between the list and the snapshot.
const TRIES: u32 = 5;
/// Where the rows of each are: whoever empties or rewrites a table puts them elsewhere.
pub(super) const NODES: &str = "SELECT c.oid, pg_catalog.pg_relation_filenode(c.oid) FROM pg_catalog.pg_class c WHERE c.relkind = 'r' AND c.oid = ANY($1)";
/// Who keeps a table for himself.
const KEEPERS: &str = "SELECT DISTINCT c.relname::text || ' (session ' || l.pid || ', ' || l.mode || ')' FROM pg_catalog.pg_locks l \
    JOIN pg_catalog.pg_class c ON c.oid = l.relation WHERE l.granted AND l.mode = 'AccessExclusiveLock' AND l.locktype = 'relation' \
    AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())";
const EXPORT: &str = "SELECT pg_catalog.pg_export_snapshot(), pg_catalog.pg_database_size(pg_catalog.current_database())";
/// GitLab is down meanwhile: whoever holds a lock for longer is not waited for.
const LOCKS: &str = "SET lock_timeout = '2s'";
/// What is held afterwards takes as long as the dump.
const NO_LOCKS: &str = "SET lock_timeout = 0";
/// No snapshot has the sequences: a dump tells them as they are when it is made. Those that were
/// never used are left to the dump.
const SEQUENCES: &str = "SELECT pg_catalog.format('%I.%I', schemaname, sequencename), last_value \
    FROM pg_catalog.pg_sequences WHERE last_value IS NOT NULL";
const LOOK: Duration = Duration::from_millis(500);

/// Exports, tells systemd that it is ready, and holds until it is stopped.
///
/// Outside the window it holds nothing: systemd starts it along with whatever requires the dump and
/// is tried again, and a snapshot of that moment would not fit what was captured.
pub async fn hold(config: &Config) -> Result<()> {
    let Some(postgresql) = &config.postgresql else { return Ok(()) };
    let mut stop = signal(SignalKind::terminate())?;
    let client = std::sync::Arc::new(Client::new(postgresql)?);
    let mut exports = JoinSet::new();
    let (databases, open) = tokio::try_join!(client.databases(), window_is_open())?;
    if !open {
        notify::ready("holding nothing: the window is over");
        stop.recv().await;
        return Ok(());
    }
    for name in databases {
        let client = std::sync::Arc::clone(&client);
        exports.spawn(async move {
            let place = client.login.place(&name);
            export(&client, name)
                .await
                .with_context(|| format!("cannot hold a snapshot of {place}"))
        });
    }
    let mut holders = Vec::new();
    while let Some(export) = exports.join_next().await {
        holders.push(export.context("an export was lost")??);
    }
    holders.sort_by(|a, b| a.database.name.cmp(&b.database.name));
    let held = Held {
        server_version: holders
            .first()
            .map(|holder| holder.session.version.clone())
            .unwrap_or_default(),
        databases: holders.iter().map(|holder| holder.database.clone()).collect(),
    };
    write_json(&Path::new(paths::PGSNAPSHOT).join("snapshots.json"), &held)?;
    let (watch, _) = client.connect_anywhere().await?;
    notify::ready(&format!("holding a snapshot of {} databases", held.databases.len()));
    let mut queue = Queue::new(postgresql.ddl_wait.duration());
    loop {
        tokio::select! {
            _ = stop.recv() => return Ok(()),
            () = sleep(LOOK) => {}
        }
        for holder in &mut holders {
            if holder.session.is_lost() {
                bail!(
                    "the snapshot of database '{}' is lost: {}",
                    holder.database.name,
                    holder.session.loss().await
                );
            }
        }
        // Dumped: whoever waits for it waits no longer.
        holders.retain(|holder| !dumped(&holder.database.name).exists());
        queue.look(&watch, &holders).await?;
    }
}

async fn window_is_open() -> Result<bool> {
    Ok(Manager::connect().await?.state(&Unit::Window.to_string()).await?.active.is_running())
}

/// Everything that is asked in the window, with the same words; what it takes ends with the
/// session.
pub(super) async fn export(client: &Client, name: String) -> Result<Holder> {
    let session = client.connect(&name).await?;
    session.run(LOCKS).await?;
    let (tables, snapshot, bytes) = whole(&session, &name).await?;
    let sequences = sequences(&session, &name).await?;
    let numbers: Vec<u32> = tables.keys().copied().collect();
    let nodes = session.rows(NODES, &[&numbers]).await?;
    let nodes =
        nodes.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect::<Result<_>>()?;
    session.run(NO_LOCKS).await?;
    let pid = session.value("SELECT pg_catalog.pg_backend_pid()", &[]).await?;
    let bytes = u64::try_from(bytes).context("a database's size is a number")?;
    Ok(Holder {
        session,
        pid,
        tables,
        database: HeldDatabase { name, snapshot, bytes, sequences, nodes },
    })
}

/// Locks every table, and then takes a snapshot in which there is no other.
async fn whole(session: &Session, name: &str) -> Result<(BTreeMap<u32, String>, String, i64)> {
    for _ in 0..TRIES {
        let tables = tables(session).await?;
        session.run(BEGIN).await?;
        if let Err(error) = lock(session, tables.values()).await {
            session.run("ROLLBACK").await?;
            match session::code(&error) {
                // Renamed or dropped meanwhile.
                Some(&SqlState::UNDEFINED_TABLE | &SqlState::INVALID_SCHEMA_NAME) => continue,
                _ => return Err(refused(session, name, error).await),
            }
        }
        let row = session.rows(EXPORT, &[]).await?.pop().context("the server exports nothing")?;
        if self::tables(session).await?.keys().eq(tables.keys()) {
            return Ok((tables, row.try_get(0)?, row.try_get(1)?));
        }
        session.run("ROLLBACK").await?;
    }
    bail!("tables of database '{name}' are made or dropped faster than they can be locked")
}

async fn tables(session: &Session) -> Result<BTreeMap<u32, String>> {
    session
        .rows(TABLES, &[])
        .await?
        .iter()
        .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
        .collect()
}

async fn lock(session: &Session, tables: impl Iterator<Item = &String>) -> Result<()> {
    let list: Vec<String> = tables.map(|table| format!("ONLY {table}")).collect();
    if list.is_empty() {
        return Ok(());
    }
    session.run(&format!("LOCK TABLE {} IN ACCESS SHARE MODE", list.join(", "))).await
}

/// Why the tables cannot be locked, and what helps.
async fn refused(session: &Session, name: &str, error: anyhow::Error) -> anyhow::Error {
    let words = match session::code(&error) {
        Some(&SqlState::LOCK_NOT_AVAILABLE) => {
            let keepers: Vec<String> = session.column(KEEPERS, &[]).await.unwrap_or_default();
            format!(
                "a table of database '{name}' is kept for longer than GitLab may be down for it, by an open transaction such as that of an ALTER TABLE: {}. \
                 Wait for its end, or end it",
                if keepers.is_empty() {
                    "look for it in pg_locks".to_owned()
                } else {
                    keepers.join(", ")
                }
            )
        }
        Some(&SqlState::OUT_OF_MEMORY) => {
            format!(
                "the server has no room for a lock on every table of database '{name}': raise max_locks_per_transaction and restart it"
            )
        }
        _ => format!("cannot lock the tables of database '{name}'"),
    };
    error.context(words)
}

async fn sequences(session: &Session, name: &str) -> Result<BTreeMap<String, i64>> {
    let rows = match session.rows(SEQUENCES, &[]).await {
        Err(error) if session::code(&error) == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
            return Err(error).with_context(|| {
                format!(
                    "a sequence of database '{name}' is locked for longer than GitLab may be down for it, by an open transaction such as that of an \
                     ALTER SEQUENCE: look for it in pg_locks (mode ShareRowExclusiveLock or higher) and pg_stat_activity (state 'idle in transaction'), \
                     and end it"
                )
            });
        }
        rows => rows?,
    };
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}
