//! Holds an exported snapshot of every database for as long as the process lives.

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
use crate::systemd::{Manager, notify};
use crate::units::Unit;

use super::client::Client;
use super::session::{self, Session};
use super::{Held, HeldDatabase};

const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
const EXPORT: &str = "SELECT pg_catalog.pg_export_snapshot(), pg_catalog.pg_database_size(pg_catalog.current_database())";
/// GitLab is down meanwhile: whoever holds a lock for longer is not waited for.
const LOCKS: &str = "SET lock_timeout = '2s'";
/// What is held afterwards takes as long as the dump.
const NO_LOCKS: &str = "SET lock_timeout = 0";
/// No snapshot has the sequences: a dump tells them as they are when it is made. Those that were never used are left to the dump.
const SEQUENCES: &str = "SELECT pg_catalog.format('%I.%I', schemaname, sequencename), last_value \
    FROM pg_catalog.pg_sequences WHERE last_value IS NOT NULL";
const LOOK: Duration = Duration::from_millis(500);

/// Exports, tells systemd that it is ready, and holds until it is stopped.
///
/// Outside the window it holds nothing: systemd starts it along with whatever requires the dump and is tried again, and a snapshot of that
/// moment would not fit what was captured.
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
            let place = client.place(&name);
            export(&client, name).await.with_context(|| format!("cannot hold a snapshot of {place}"))
        });
    }
    let mut holders = Vec::new();
    let mut held = Held { server_version: String::new(), databases: Vec::new() };
    while let Some(export) = exports.join_next().await {
        let (session, database) = export.context("an export was lost")??;
        held.server_version.clone_from(&session.version);
        holders.push((session, database.name.clone()));
        held.databases.push(database);
    }
    held.databases.sort_by(|a, b| a.name.cmp(&b.name));
    write_json(&Path::new(paths::PGSNAPSHOT).join("snapshots.json"), &held)?;
    let status = format!("holding a snapshot of {} databases", held.databases.len());
    notify::ready(&status);
    loop {
        tokio::select! {
            _ = stop.recv() => return Ok(()),
            () = sleep(LOOK) => {}
        }
        for (session, name) in &mut holders {
            if session.is_lost() {
                bail!("the snapshot of database '{name}' is lost: {}", session.loss().await);
            }
        }
    }
}

async fn window_is_open() -> Result<bool> {
    Ok(Manager::connect().await?.state(&Unit::Window.to_string()).await?.active.is_running())
}

/// Everything that is asked in the window, with the same words; what it takes ends with the session.
pub(super) async fn export(client: &Client, name: String) -> Result<(Session, HeldDatabase)> {
    let session = client.connect(&name).await?;
    session.run(LOCKS).await?;
    session.run(BEGIN).await?;
    let row = session.rows(EXPORT, &[]).await?.pop().context("the server exports nothing")?;
    let (snapshot, bytes): (String, i64) = (row.try_get(0)?, row.try_get(1)?);
    let sequences = sequences(&session, &name).await?;
    session.run(NO_LOCKS).await?;
    let bytes = u64::try_from(bytes).context("a database's size is a number")?;
    Ok((session, HeldDatabase { name, snapshot, bytes, sequences }))
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
