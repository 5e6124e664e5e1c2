//! Everything that could make the snapshot or the dump fail and can be known before GitLab is touched.

use anyhow::{Context, Result, ensure};

use super::client::Client;
use crate::config::Config;
use crate::steps::notify;

/// Checks the programs, the server and every database.
pub async fn preflight(config: &Config) -> Result<()> {
    let client = Client::new(config)?;
    for program in ["psql", "pg_dump", "pg_dumpall", "pg_restore"] {
        client.find(program)?;
    }

    let number = client.query(client.maintenance(), "SHOW server_version_num").await?;
    let server: u32 = number.parse::<u32>().with_context(|| format!("the server's version is {number:?}?"))? / 10_000;
    for program in ["pg_dump", "pg_dumpall"] {
        let (version, major) = client.version(program).await?;
        ensure!(
            major >= server,
            "{version} is too old for {}, which is version {server}: set bin-dir in [postgresql] to the programs of that version",
            client.place()
        );
    }

    let databases = client.databases().await?;
    for database in &databases {
        client.query(database, "SELECT 1").await?;
    }
    let text = format!("{} databases of PostgreSQL {server} can be reached", databases.len());
    tracing::info!("{text}");
    notify::status(&text);
    Ok(())
}
