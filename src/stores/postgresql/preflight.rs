//! Checks PostgreSQL before GitLab is stopped.

use anyhow::{Context, Result, bail, ensure};

use crate::config::{Config, Postgresql};
use crate::finding::{Finding, conclude};

use super::client::Client;
use super::session::Session;
use super::{hold, programs, role};

/// Fails if a database cannot be held in a snapshot, or pg_dump is too old for the server.
pub async fn preflight(config: &Config) -> Result<()> {
    conclude(&findings(config).await)
}

/// Runs the checks. Changes nothing. This process must run as the account that is configured for
/// PostgreSQL: through a socket, the server authenticates the account.
pub async fn findings(config: &Config) -> Vec<Finding> {
    let Some(postgresql) = &config.postgresql else { return Vec::new() };
    match check_server(postgresql).await {
        Ok((session, summary)) => {
            let mut findings = vec![
                Finding::of("postgresql", Ok(summary)),
                Finding::of("pg_dump", check_programs(postgresql, session.major).await),
            ];
            findings.extend(role::finding(postgresql, &session).await);
            findings.extend(left_out(postgresql).await);
            findings
        }
        Err(error) => vec![Finding::of("postgresql", Err(error))],
    }
}

/// Warns about databases that a run leaves out.
async fn left_out(postgresql: &Postgresql) -> Option<Finding> {
    let reasons = async { Client::new(postgresql)?.inaccessible_databases().await }.await.ok()?;
    (!reasons.is_empty()).then(|| Finding::warning("postgresql databases", reasons.join("\n")))
}

/// Holds a snapshot of every database as in the window, and releases the snapshots again. Returns a
/// session with the server, and a summary.
async fn check_server(postgresql: &Postgresql) -> Result<(Session, String)> {
    let client = Client::new(postgresql)?;
    let databases = client.databases().await?;
    // All at the same time, as in the window: the server must have room for every lock.
    let mut holders = Vec::new();
    let mut failures = Vec::new();
    for database in &databases {
        match hold::export(&client, database.clone()).await {
            Ok(holder) => holders.push(holder),
            Err(error) => {
                failures.push(format!("cannot hold a snapshot of database '{database}': {error:#}"))
            }
        }
    }
    // A run connects this way for the roles and settings of the server.
    failures.extend(client.connect_anywhere().await.err().map(|error| format!("{error:#}")));
    if !failures.is_empty() {
        bail!("{}", failures.join("\n"));
    }
    let session = holders
        .pop()
        .with_context(|| format!("PostgreSQL at {} has no database to back up", postgresql.host))?
        .session;
    drop(holders);
    session.run("ROLLBACK").await?;
    let summary =
        format!("version {} at {}, {} databases", session.major, postgresql.host, databases.len());
    Ok((session, summary))
}

/// Checks that PostgreSQL's client programs are installed, are not older than the server, and work
/// with it.
async fn check_programs(postgresql: &Postgresql, server: u32) -> Result<String> {
    let client = Client::new(postgresql)?;
    for program in ["pg_dump", "pg_dumpall", "pg_restore"] {
        let version = programs::version(&client, program, server).await?;
        ensure!(
            version >= server,
            "{program} {version} is older than the server ({server}): name the directory of the \
             server's programs in [postgresql] bin-dir"
        );
    }
    Ok(format!("version {}", programs::check_round_trip(&client, server).await?))
}
