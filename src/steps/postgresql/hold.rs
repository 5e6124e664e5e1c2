//! Exports a snapshot of every database and keeps it alive.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures_util::future::{select_all, try_join_all};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::client::Client;
use super::{SNAPSHOTS, Snapshot, Snapshots};
use crate::config::Config;
use crate::paths;
use crate::runs::write_json;
use crate::steps::{notify, process};

/// psql waits for our input and does not see its connection die, so it is asked now and then.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// The longest time for an answer to the heartbeat, also on a busy server.
const ANSWER: Duration = Duration::from_secs(60);
/// A stop reaches psql and us at the same time: how long our own SIGTERM may be behind the news of psql's end.
const STOP: Duration = Duration::from_secs(1);

/// Holds the snapshots until it is stopped. Fails as soon as one is lost.
pub async fn hold(config: &Config) -> Result<()> {
    let mut stop = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let result = tokio::select! {
        biased;
        _ = stop.recv() => return Ok(()),
        result = export_and_watch(config) => result,
    };
    match timeout(STOP, stop.recv()).await {
        Ok(_) => Ok(()),
        Err(_) => result,
    }
}

async fn export_and_watch(config: &Config) -> Result<()> {
    let client = Client::new(config)?;
    let names = client.databases().await?;
    notify::status(&format!("exporting snapshots of {} databases", names.len()));
    let mut sessions = try_join_all(names.iter().map(|name| Session::open(&client, name))).await?;

    let snapshots = Snapshots {
        server_version: sessions.first().map(|session| session.server_version.clone()).unwrap_or_default(),
        databases: sessions.iter().map(|session| session.snapshot.clone()).collect(),
    };
    write_json(&Path::new(paths::PGSNAPSHOT).join(SNAPSHOTS), &snapshots)?;
    notify::ready(&format!("holding snapshots of {}", names.join(", ")));

    let (result, _, _) = select_all(sessions.iter_mut().map(|session| Box::pin(session.watch()))).await;
    result
}

/// A psql with an open transaction.
struct Session {
    psql: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    errors: Option<JoinHandle<String>>,
    snapshot: Snapshot,
    server_version: String,
}

impl Session {
    /// Starts psql and exports the snapshot.
    async fn open(client: &Client<'_>, database: &str) -> Result<Self> {
        let mut command = client.psql(database)?;
        command.stdin(Stdio::piped());
        let mut psql = command.spawn().context("cannot run psql")?;
        let errors = Some(process::drain(psql.stderr.take()));
        let input = psql.stdin.take().context("psql has no input")?;
        let output = BufReader::new(psql.stdout.take().context("psql has no output")?).lines();
        let snapshot = Snapshot { name: database.to_owned(), snapshot: String::new(), bytes: 0 };
        let mut session = Self { psql, input, output, errors, snapshot, server_version: String::new() };
        session.export().await.with_context(|| format!("cannot export a snapshot of database {database:?} of {}", client.place()))?;
        Ok(session)
    }

    async fn export(&mut self) -> Result<()> {
        let number = self.ask("SHOW server_version_num;\n").await?;
        let number: u32 = number.parse().with_context(|| format!("the server's version is {number:?}?"))?;
        self.server_version = self.ask("SHOW server_version;\n").await?;
        let bytes = self.ask("SELECT pg_catalog.pg_database_size(pg_catalog.current_database());\n").await?;
        self.snapshot.bytes = bytes.parse().with_context(|| format!("the database's size is {bytes:?}?"))?;
        self.snapshot.snapshot = self.ask(&export_sql(number)).await?;
        ensure!(!self.snapshot.snapshot.is_empty(), "the server gave no snapshot");
        Ok(())
    }

    /// One line of answer.
    async fn ask(&mut self, sql: &str) -> Result<String> {
        // If psql is gone, the write may fail; why is in what it said.
        let written = async {
            self.input.write_all(sql.as_bytes()).await?;
            self.input.flush().await
        };
        let written = written.await;
        match self.output.next_line().await {
            Ok(Some(line)) if written.is_ok() => Ok(line),
            _ => bail!("psql ended: {}", self.last_words().await),
        }
    }

    async fn last_words(&mut self) -> String {
        // It may be that only its pipe is gone.
        if timeout(STOP, self.psql.wait()).await.is_err() {
            let _ = self.psql.start_kill();
        }
        match self.errors.take() {
            Some(errors) => errors.await.unwrap_or_default(),
            None => String::new(),
        }
    }

    /// Ends only when the snapshot is lost.
    async fn watch(&mut self) -> Result<()> {
        let name = self.snapshot.name.clone();
        let lost = || format!("the snapshot of database {name:?} is lost, a dump from it cannot be complete");
        loop {
            tokio::select! {
                _ = self.psql.wait() => {
                    let words = self.last_words().await;
                    bail!("{}: psql ended: {words}", lost());
                }
                () = sleep(HEARTBEAT) => {}
            }
            timeout(ANSWER, self.ask("SELECT 1;\n"))
                .await
                .with_context(|| format!("{}: no answer for {} s", lost(), ANSWER.as_secs()))?
                .with_context(lost)?;
        }
    }
}

/// Omnibus ends idle transactions after a minute; a role or database may have limits of its own.
fn export_sql(server_version_num: u32) -> String {
    let mut limits = vec!["idle_in_transaction_session_timeout", "statement_timeout", "lock_timeout"];
    if server_version_num >= 140_000 {
        limits.push("idle_session_timeout");
    }
    if server_version_num >= 170_000 {
        limits.push("transaction_timeout");
    }
    let mut sql: String = limits.iter().map(|limit| format!("SET {limit} = 0;\n")).collect();
    sql.push_str("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;\nSELECT pg_catalog.pg_export_snapshot();\n");
    sql
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_limits_that_the_server_knows() {
        assert!(!export_sql(130_012).contains("idle_session_timeout"));
        assert!(export_sql(150_008).contains("SET idle_session_timeout = 0;"));
        assert!(!export_sql(160_000).contains("\nSET transaction_timeout"));
        assert!(export_sql(170_000).contains("SET transaction_timeout = 0;"));
    }
}
