//! Every database of the run, loaded into a new one beside the old.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use indicatif::BinaryBytes;
use tokio::time::interval;

use crate::config::Config;
use crate::runs::Database;
use crate::runs::record::read_json;
use crate::runs::restore::StagedDatabase;
use crate::steps::postgresql::Dumped;
use crate::steps::postgresql::client::{Client, literal};
use crate::steps::postgresql::load::{self, MAINTENANCE};
use crate::systemd::notify;

use super::{dump_directory, plan};

/// Between two looks at how far it is.
const LOOK: Duration = Duration::from_secs(1);

/// Makes the roles that are missing, and each database under the name that it has until everything is there.
pub async fn load(config: &Config) -> Result<()> {
    let plan = plan()?;
    let (Some(part), Some(postgresql)) = (&plan.postgresql, &config.postgresql) else { return Ok(()) };
    let client = Client::new(postgresql)?;
    let dumps = dump_directory(part)?;
    let globals = super::globals(part)?;
    for role in load::roles(&client, &globals).await? {
        tracing::info!(role, "made a role that was not there");
    }
    // All or none: pg_restore cannot leave out some.
    let options: &[&str] = match load::missing_tablespaces(&client, &globals).await?.is_empty() {
        true => &[],
        false => &["--no-tablespaces"],
    };
    let told: Dumped = read_json(&dumps.join("postgresql.json"))?.context("the dumps have no postgresql.json")?;
    for (index, database) in plan.databases.iter().enumerate() {
        let told = told.databases.iter().find(|told| told.name == database.database.name).unwrap_or(&database.database);
        let work = one(&client, database, told, &dumps, options);
        tokio::pin!(work);
        let mut tick = interval(LOOK);
        loop {
            tokio::select! {
                done = &mut work => break done?,
                _ = tick.tick() => {
                    let now = size(&client, &database.staged).await;
                    let (name, whole) = (&database.database.name, BinaryBytes(database.database.bytes));
                    let which = format!("database {} of {}", index + 1, plan.databases.len());
                    notify::status(&format!("loading {name} ({which}): {} of {whole}", BinaryBytes(now)));
                }
            }
        }
    }
    Ok(())
}

async fn one(client: &Client<'_>, database: &StagedDatabase, told: &Database, dumps: &Path, options: &[&str]) -> Result<()> {
    load::create(client, &database.staged, &database.database).await?;
    load::fill(client, &database.staged, &dumps.join(&database.database.directory), options).await?;
    load::sequences(client, &database.staged, told).await?;
    let mut analyze = client.command("vacuumdb", &database.staged);
    analyze.args(["--analyze-only", "--quiet"]).arg(format!("--jobs={}", client.config.jobs));
    let output = analyze.stdout(Stdio::null()).output().await.context("cannot run vacuumdb: is it installed?")?;
    ensure!(output.status.success(), "ANALYZE of {}: {}", client.place(&database.staged), String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

/// Bytes that a database takes so far.
async fn size(client: &Client<'_>, name: &str) -> u64 {
    let sql = format!("SELECT pg_database_size(datname) FROM pg_database WHERE datname = {};\n", literal(name));
    client.query(MAINTENANCE, &sql).await.ok().and_then(|rows| rows.concat().parse().ok()).unwrap_or(0)
}
