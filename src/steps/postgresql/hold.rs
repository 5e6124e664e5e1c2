//! Holds an exported snapshot of every database for as long as the process lives.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::Child;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::config::Config;
use crate::paths;
use crate::runs::record::write_json;
use crate::systemd::{Manager, notify};
use crate::units::Unit;

use super::client::Client;
use super::{Held, HeldDatabase};

/// The server's timeouts would end the holder and with it the dump; those that a server does not know are left out by asking it.
const SETTINGS: &str = "SELECT set_config(name, '0', false) FROM pg_settings WHERE name IN ('idle_in_transaction_session_timeout', \
    'idle_session_timeout', 'statement_timeout', 'lock_timeout', 'transaction_timeout') \\g /dev/null\n";
const EXPORT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;\n\
    SELECT pg_export_snapshot() || ' ' || pg_database_size(current_database()) || ' ' || current_setting('server_version');\n";
/// No snapshot has the sequences: a dump tells them as they are when it is made. Those that were never used are left to the dump.
const SEQUENCES: &str = "SELECT coalesce(json_object_agg(format('%I.%I', schemaname, sequencename), last_value) \
    FILTER (WHERE last_value IS NOT NULL), '{}') FROM pg_sequences;\n";
const LOOK: Duration = Duration::from_millis(500);

/// Exports, tells systemd that it is ready, and holds until it is stopped.
///
/// Outside the window it holds nothing: systemd starts it along with whatever requires the dump and is tried again, and a snapshot of that
/// moment would not fit what was captured.
pub async fn hold(config: &Config) -> Result<()> {
    let Some(postgresql) = &config.postgresql else { return Ok(()) };
    let mut stop = signal(SignalKind::terminate())?;
    let client = Client::new(postgresql)?;
    let mut exports = JoinSet::new();
    let (databases, open) = tokio::try_join!(client.databases(), window_is_open())?;
    if !open {
        notify::ready("holding nothing: the window is over");
        stop.recv().await;
        return Ok(());
    }
    for name in databases {
        let place = client.place(&name);
        let child = client.psql(&name).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let child = child.context("cannot run psql: is it installed?")?;
        exports.spawn(async move { export(child, name).await.with_context(|| format!("cannot hold a snapshot of {place}")) });
    }
    let mut holders = Vec::new();
    let mut held = Held { server_version: String::new(), databases: Vec::new() };
    while let Some(export) = exports.join_next().await {
        let (child, database, version) = export.context("an export was lost")??;
        holders.push((child, database.name.clone()));
        held.server_version = version;
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
        for (child, name) in &mut holders {
            if let Some(status) = child.try_wait()? {
                bail!("the snapshot of database '{name}' is lost: psql ended with {status}: {}", complaint(child).await);
            }
        }
    }
}

async fn window_is_open() -> Result<bool> {
    Ok(Manager::connect().await?.state(&Unit::Window.to_string()).await?.active.is_running())
}

async fn export(mut child: Child, name: String) -> Result<(Child, HeldDatabase, String)> {
    let stdin = child.stdin.as_mut().context("psql has no stdin")?;
    let asked = stdin.write_all(format!("{SETTINGS}{EXPORT}{SEQUENCES}").as_bytes()).await;
    let (mut line, mut sequences) = (String::new(), String::new());
    let mut answers = BufReader::new(child.stdout.as_mut().context("psql has no stdout")?);
    answers.read_line(&mut line).await?;
    answers.read_line(&mut sequences).await?;
    let mut words = line.split_whitespace();
    let (Ok(()), Some(snapshot), Some(bytes), Some(version)) = (asked, words.next(), words.next(), words.next()) else {
        bail!("{}", complaint(&mut child).await);
    };
    let bytes = bytes.parse().context("a database's size is a number")?;
    let sequences = match serde_json::from_str(&sequences) {
        Ok(sequences) => sequences,
        Err(_) => bail!("{}", complaint(&mut child).await),
    };
    Ok((child, HeldDatabase { name, snapshot: snapshot.to_owned(), bytes, sequences }, version.to_owned()))
}

async fn complaint(child: &mut Child) -> String {
    let mut text = String::new();
    if let Some(stderr) = child.stderr.as_mut() {
        let _ = stderr.read_to_string(&mut text).await;
    }
    text.trim().replace('\n', "; ")
}
