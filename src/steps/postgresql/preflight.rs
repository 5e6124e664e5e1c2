//! Everything that PostgreSQL can be asked before GitLab is touched.

use anyhow::{Context, Result, ensure};

use crate::config::Config;

use super::client::Client;

/// Fails if a database cannot be reached or pg_dump is too old for the server.
pub async fn preflight(config: &Config) -> Result<()> {
    let Some(postgresql) = &config.postgresql else { return Ok(()) };
    let client = Client::new(postgresql)?;
    let databases = client.databases().await?;
    ensure!(!databases.is_empty(), "PostgreSQL at {} has no database to back up", postgresql.host);
    let mut server = 0;
    for database in &databases {
        let rows = client.query(database, "SHOW server_version_num").await?;
        let number: u32 = rows.first().and_then(|row| row.parse().ok()).context("PostgreSQL does not tell its version")?;
        server = number / 10_000;
    }
    let output = client.command_offline("pg_dump").arg("--version").output().await.context("cannot run pg_dump: is it installed?")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let major = text.split_whitespace().find_map(|word| word.split('.').next()?.parse::<u32>().ok());
    let major = major.with_context(|| format!("pg_dump does not tell its version: '{}'", text.trim()))?;
    ensure!(major >= server, "pg_dump {major} is older than the server ({server}): name the server's programs by [postgresql] bin-dir");
    Ok(())
}
