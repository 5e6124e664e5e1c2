//! Everything that PostgreSQL can be asked before GitLab is touched.

use anyhow::{Context, Result, bail, ensure};

use crate::config::{Config, Postgresql};
use crate::finding::{Finding, conclude};

use super::client::Client;
use super::session::Session;
use super::{hold, programs, role};

/// Fails if a database cannot be reached or pg_dump is too old for the server.
pub async fn preflight(config: &Config) -> Result<()> {
    conclude(&findings(config).await)
}

/// What was found; changes nothing. For PostgreSQL's own user: by a socket it knows no other.
pub async fn findings(config: &Config) -> Vec<Finding> {
    let Some(postgresql) = &config.postgresql else { return Vec::new() };
    match server(postgresql).await {
        Ok((session, seen)) => {
            let mut findings = vec![
                Finding::of("postgresql", Ok(seen)),
                Finding::of("pg_dump", pg_dump(postgresql, session.major).await),
            ];
            findings.extend(role::finding(postgresql, &session).await);
            findings.extend(left_out(postgresql).await);
            findings
        }
        Err(error) => vec![Finding::of("postgresql", Err(error))],
    }
}

/// What a run leaves out.
async fn left_out(postgresql: &Postgresql) -> Option<Finding> {
    let words = async { Client::new(postgresql)?.closed().await }.await.ok()?;
    (!words.is_empty()).then(|| Finding::warning("postgresql databases", words.join("\n")))
}

/// A session with the server, and what was seen. Every database is asked what it will be asked in
/// the window, and what is asked behind it.
async fn server(postgresql: &Postgresql) -> Result<(Session, String)> {
    let client = Client::new(postgresql)?;
    let databases = client.databases().await?;
    // All at once, as in the window: the server must have room for every lock.
    let mut holders = Vec::new();
    let mut failures = Vec::new();
    for database in &databases {
        match hold::export(&client, database.clone()).await {
            Ok(holder) => holders.push(holder),
            Err(error) => failures
                .push(format!("no snapshot of database '{database}' can be held: {error:#}")),
        }
    }
    // For what belongs to none of them.
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
    let seen =
        format!("version {} at {}, {} databases", session.major, postgresql.host, databases.len());
    Ok((session, seen))
}

/// The programs, and that they go together with the server.
async fn pg_dump(postgresql: &Postgresql, server: u32) -> Result<String> {
    let client = Client::new(postgresql)?;
    for program in ["pg_dump", "pg_dumpall", "pg_restore"] {
        let here = programs::version(&client, program, server).await?;
        ensure!(
            here >= server,
            "{program} {here} is older than the server ({server}): name the server's programs by [postgresql] bin-dir"
        );
    }
    Ok(format!("version {}", programs::prove(&client, server).await?))
}
