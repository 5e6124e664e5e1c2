//! Everything that PostgreSQL can be asked before GitLab is touched.

use anyhow::{Context, Result, bail, ensure};

use crate::config::{Config, Postgresql};
use crate::finding::{Finding, conclude};

use super::client::{Client, major};

/// Fails if a database cannot be reached or pg_dump is too old for the server.
pub async fn preflight(config: &Config) -> Result<()> {
    conclude(&findings(config).await)
}

/// What was found; changes nothing. For PostgreSQL's own user: by a socket it knows no other.
pub async fn findings(config: &Config) -> Vec<Finding> {
    let Some(postgresql) = &config.postgresql else { return Vec::new() };
    match server(postgresql).await {
        Ok((major, seen)) => {
            vec![Finding::of("postgresql", Ok(seen)), Finding::of("pg_dump", pg_dump(postgresql, major).await)]
        }
        Err(error) => vec![Finding::of("postgresql", Err(error))],
    }
}

/// The server's major version, and what was seen. Every database is asked.
async fn server(postgresql: &Postgresql) -> Result<(u32, String)> {
    let client = Client::new(postgresql)?;
    let databases = client.databases().await?;
    ensure!(!databases.is_empty(), "PostgreSQL at {} has no database to back up", postgresql.host);
    let mut server = 0;
    let mut failures = Vec::new();
    for database in &databases {
        match client.query(database, "SHOW server_version_num").await {
            Ok(rows) => {
                let number: u32 = rows.first().and_then(|row| row.parse().ok()).context("PostgreSQL does not tell its version")?;
                server = number / 10_000;
            }
            Err(error) => failures.push(format!("{error:#}")),
        }
    }
    if !failures.is_empty() {
        bail!("{}", failures.join("\n"));
    }
    Ok((server, format!("version {server} at {}, {} databases", postgresql.host, databases.len())))
}

async fn pg_dump(postgresql: &Postgresql, server: u32) -> Result<String> {
    let client = Client::new(postgresql)?;
    let output = client.command_offline("pg_dump").arg("--version").output().await.context("cannot run pg_dump: is it installed?")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let major = major(&text).with_context(|| format!("pg_dump does not tell its version: '{}'", text.trim()))?;
    ensure!(major >= server, "pg_dump {major} is older than the server ({server}): name the server's programs by [postgresql] bin-dir");
    Ok(format!("version {major}"))
}
