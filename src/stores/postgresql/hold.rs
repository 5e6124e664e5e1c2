//! Holds an exported snapshot of every database, and locks on its tables, until the database is
//! dumped.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_postgres::error::SqlState;

use crate::config::Config;
use crate::paths::RootDirectory;
use crate::runs::record::write_json;
use crate::systemd::{ServiceManager, notify};
use crate::units::Unit;

use super::client::Client;
use super::queue::LockWaiters;
use super::session::{self, Session};
use super::{HeldSnapshot, HeldSnapshots, SnapshotHolder, record_path, snapshots_path};

const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
/// The tables to lock before the snapshot is taken: TRUNCATE and statements that rewrite a table
/// remove its rows from every snapshot.
const TABLES: &str = "SELECT c.oid, pg_catalog.format('%I.%I', n.nspname, c.relname) \
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND n.nspname <> \
    'information_schema' AND n.nspname !~ '^pg_' ORDER BY c.oid";
/// How often to try again if tables are created or dropped between the list and the snapshot.
const TRIES: u32 = 5;
/// The file node of each table. A statement that empties or rewrites a table changes it.
pub(super) const NODES: &str = "SELECT c.oid, pg_catalog.pg_relation_filenode(c.oid) FROM \
                                pg_catalog.pg_class c WHERE c.relkind = 'r' AND c.oid = ANY($1)";
/// The sessions that have an exclusive lock on a table.
const EXCLUSIVE_LOCKS: &str = "SELECT DISTINCT c.relname::text || ' (session ' || l.pid || ', ' || \
                               l.mode || ')' FROM pg_catalog.pg_locks l \
    JOIN pg_catalog.pg_class c ON c.oid = l.relation WHERE l.granted AND l.mode = \
    'AccessExclusiveLock' AND l.locktype = 'relation' \
    AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = \
    pg_catalog.current_database())";
const EXPORT: &str = "SELECT pg_catalog.pg_export_snapshot(), \
                      pg_catalog.pg_database_size(pg_catalog.current_database())";
/// GitLab is down while the tables are locked, so the wait for a lock is short.
const SET_LOCK_TIMEOUT: &str = "SET lock_timeout = '2s'";
/// For the statements after the window.
const RESET_LOCK_TIMEOUT: &str = "SET lock_timeout = 0";
/// The values of the sequences. Snapshots do not include sequences, so pg_dump writes their values
/// at the time of the dump. Sequences that were never used have no value, and are left to pg_dump.
const SEQUENCES: &str = "SELECT pg_catalog.format('%I.%I', schemaname, sequencename), last_value \
    FROM pg_catalog.pg_sequences WHERE last_value IS NOT NULL";
/// Between two checks of the sessions.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// Exports a snapshot of every database, notifies systemd, and holds the snapshots until it is
/// stopped.
///
/// Outside the window it holds nothing: systemd also starts this unit when a unit that requires the
/// dump is retried, and a snapshot from then would not match the other stores.
pub async fn hold<M: ServiceManager>(
    config: &Config,
    root: &RootDirectory,
    connect: impl AsyncFnOnce() -> Result<M>,
) -> Result<()> {
    let Some(postgresql) = &config.postgresql else { return Ok(()) };
    let mut stop = signal(SignalKind::terminate())?;
    let client = Arc::new(Client::new(postgresql)?);
    let (databases, is_open) = tokio::try_join!(client.databases(), is_window_open(connect))?;
    if !is_open {
        notify::ready("holding nothing: the window is over");
        stop.recv().await;
        return Ok(());
    }
    let mut holders = export_all(&client, databases).await?;
    let held = HeldSnapshots {
        server_version: holders
            .first()
            .map(|holder| holder.session.version.clone())
            .unwrap_or_default(),
        databases: holders.iter().map(|holder| holder.database.clone()).collect(),
    };
    write_json(&snapshots_path(root), &held)?;
    let (watch, _) = client.connect_anywhere().await?;
    notify::ready(&format!("holding a snapshot of {} databases", held.databases.len()));
    let mut waiters = LockWaiters::new(postgresql.ddl_wait.duration());
    loop {
        tokio::select! {
            _ = stop.recv() => return Ok(()),
            () = sleep(CHECK_INTERVAL) => {}
        }
        ensure_none_lost(&mut holders).await?;
        // Release the locks of a database as soon as it is dumped.
        holders.retain(|holder| !record_path(root, &holder.database.name).exists());
        waiters.check(&watch, &holders).await?;
    }
}

/// Exports a snapshot of each database, all at the same time. Returns them in the order of their
/// names.
async fn export_all(client: &Arc<Client>, databases: Vec<String>) -> Result<Vec<SnapshotHolder>> {
    let mut exports = JoinSet::new();
    for name in databases {
        let client = Arc::clone(client);
        exports.spawn(async move {
            let place = client.login.describe(&name);
            export(&client, name)
                .await
                .with_context(|| format!("cannot hold a snapshot of {place}"))
        });
    }
    let mut holders = Vec::new();
    while let Some(export) = exports.join_next().await {
        holders.push(export.context("an export task panicked")??);
    }
    holders.sort_by(|a, b| a.database.name.cmp(&b.database.name));
    Ok(holders)
}

/// Fails if the session of a snapshot has ended, with the reason.
async fn ensure_none_lost(holders: &mut [SnapshotHolder]) -> Result<()> {
    for holder in holders {
        if holder.session.is_lost() {
            bail!(
                "the snapshot of database '{}' is lost: {}",
                holder.database.name,
                holder.session.loss().await
            );
        }
    }
    Ok(())
}

async fn is_window_open<M: ServiceManager>(
    connect: impl AsyncFnOnce() -> Result<M>,
) -> Result<bool> {
    let manager = connect().await?;
    for window in [Unit::Window, Unit::Hold] {
        if manager.state(&window.to_string()).await?.active.is_running() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Locks the tables of a database, exports a snapshot, and reads its sequences. The locks and the
/// snapshot end with the session in the returned value.
pub(super) async fn export(client: &Client, name: String) -> Result<SnapshotHolder> {
    let session = client.connect(&name).await?;
    session.run(SET_LOCK_TIMEOUT).await?;
    let (tables, snapshot, bytes) = lock_and_export(&session, &name).await?;
    let sequences = read_sequences(&session, &name).await?;
    let oids: Vec<u32> = tables.keys().copied().collect();
    let nodes = session.rows(NODES, &[&oids]).await?;
    let nodes =
        nodes.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect::<Result<_>>()?;
    session.run(RESET_LOCK_TIMEOUT).await?;
    let pid = session.value("SELECT pg_catalog.pg_backend_pid()", &[]).await?;
    let bytes = u64::try_from(bytes).context("a database's size is a number")?;
    Ok(SnapshotHolder {
        session,
        pid,
        tables,
        database: HeldSnapshot { name, snapshot, bytes, sequences, nodes },
    })
}

/// Locks every table, and then exports a snapshot that has no other tables. Returns the tables, the
/// snapshot's identifier and the database's size.
async fn lock_and_export(
    session: &Session,
    name: &str,
) -> Result<(BTreeMap<u32, String>, String, i64)> {
    for _ in 0..TRIES {
        let tables = list_tables(session).await?;
        session.run(BEGIN).await?;
        if let Err(error) = lock(session, tables.values()).await {
            session.run("ROLLBACK").await?;
            match session::code(&error) {
                // A table was renamed or dropped after it was listed.
                Some(&SqlState::UNDEFINED_TABLE | &SqlState::INVALID_SCHEMA_NAME) => continue,
                _ => return Err(explain_lock_error(session, name, error).await),
            }
        }
        let row =
            session.rows(EXPORT, &[]).await?.pop().context("the server exported no snapshot")?;
        if list_tables(session).await?.keys().eq(tables.keys()) {
            return Ok((tables, row.try_get(0)?, row.try_get(1)?));
        }
        session.run("ROLLBACK").await?;
    }
    bail!("tables of database '{name}' are created or dropped faster than they can be locked")
}

async fn list_tables(session: &Session) -> Result<BTreeMap<u32, String>> {
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

/// Adds to an error of [`lock`] why the tables cannot be locked, and the remedy.
async fn explain_lock_error(session: &Session, name: &str, error: anyhow::Error) -> anyhow::Error {
    let explanation = match session::code(&error) {
        Some(&SqlState::LOCK_NOT_AVAILABLE) => {
            let lockers: Vec<String> =
                session.column(EXCLUSIVE_LOCKS, &[]).await.unwrap_or_default();
            format!(
                "a table of database '{name}' is locked for longer than GitLab may be down for it, \
                 by an open transaction such as that of an ALTER TABLE: {}. \
                 Wait for its end, or end it",
                if lockers.is_empty() {
                    "look for it in pg_locks".to_owned()
                } else {
                    lockers.join(", ")
                }
            )
        }
        Some(&SqlState::OUT_OF_MEMORY) => {
            format!(
                "the server has no room for a lock on every table of database '{name}': raise \
                 max_locks_per_transaction and restart the server"
            )
        }
        _ => format!("cannot lock the tables of database '{name}'"),
    };
    error.context(explanation)
}

async fn read_sequences(session: &Session, name: &str) -> Result<BTreeMap<String, i64>> {
    let rows = match session.rows(SEQUENCES, &[]).await {
        Err(error) if session::code(&error) == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
            return Err(error).with_context(|| {
                format!(
                    "a sequence of database '{name}' is locked for longer than GitLab may be down \
                     for it, by an open transaction such as that of an \
                     ALTER SEQUENCE: look for it in pg_locks (mode ShareRowExclusiveLock or \
                     higher) and pg_stat_activity (state 'idle in transaction'), \
                     and end it"
                )
            });
        }
        rows => rows?,
    };
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}
