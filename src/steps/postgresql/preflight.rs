//! Everything that PostgreSQL can be asked before GitLab is touched.

use anyhow::{Context, Result, bail, ensure};

use crate::config::{Config, Postgresql};
use crate::finding::{Finding, conclude};

use super::client::{Client, major};
use super::role;
use super::session::Session;

/// Fails if a database cannot be reached or pg_dump is too old for the server.
pub async fn preflight(config: &Config) -> Result<()> {
    conclude(&findings(config).await)
}

/// What was found; changes nothing. For PostgreSQL's own user: by a socket it knows no other.
pub async fn findings(config: &Config) -> Vec<Finding> {
    let Some(postgresql) = &config.postgresql else { return Vec::new() };
    match server(postgresql).await {
        Ok((session, seen)) => {
            let mut findings = vec![Finding::of("postgresql", Ok(seen)), Finding::of("pg_dump", pg_dump(postgresql, session.major).await)];
            findings.extend(role::finding(postgresql, &session).await);
            findings
        }
        Err(error) => vec![Finding::of("postgresql", Err(error))],
    }
}

/// A session with the server, and what was seen. Every database is asked.
async fn server(postgresql: &Postgresql) -> Result<(Session, String)> {
    let client = Client::new(postgresql)?;
    let databases = client.databases().await?;
    let mut sessions = Vec::new();
    let mut failures = Vec::new();
    for database in &databases {
        match client.connect(database).await {
            Ok(session) => sessions.push(session),
            Err(error) => failures.push(format!("{error:#}")),
        }
    }
    if !failures.is_empty() {
        bail!("{}", failures.join("\n"));
    }
    let session = sessions.pop().with_context(|| format!("PostgreSQL at {} has no database to back up", postgresql.host))?;
    let seen = format!("version {} at {}, {} databases", session.major, postgresql.host, databases.len());
    Ok((session, seen))
}

async fn pg_dump(postgresql: &Postgresql, server: u32) -> Result<String> {
    let client = Client::new(postgresql)?;
    let output = client.command_offline("pg_dump").arg("--version").output().await.context("cannot run pg_dump: is it installed?")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let major = major(&text).with_context(|| format!("pg_dump does not tell its version: '{}'", text.trim()))?;
    ensure!(major >= server, "pg_dump {major} is older than the server ({server}): name the server's programs by [postgresql] bin-dir");
    Ok(format!("version {major}"))
}
