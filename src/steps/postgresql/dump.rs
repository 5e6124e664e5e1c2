//! Dumps every database from its held snapshot, GitLab being up again.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use indicatif::BinaryBytes;
use serde::Serialize;
use tokio::time::interval;

use crate::config::Config;
use crate::paths;
use crate::runs::record::{read_json, write_json};
use crate::systemd::notify;

use super::client::Client;
use super::{Held, HeldDatabase};

#[derive(Serialize)]
struct Dumped {
    server_version: String,
    databases: Vec<DumpedDatabase>,
}

#[derive(Serialize)]
struct DumpedDatabase {
    name: String,
    directory: String,
    bytes: u64,
}

/// Dumps into the staging area: a directory for each database, and what belongs to none of them.
pub async fn dump(config: &Config) -> Result<()> {
    let Some(postgresql) = &config.postgresql else { return Ok(()) };
    let client = Client::new(postgresql)?;
    let held: Held = read_json(&Path::new(paths::PGSNAPSHOT).join("snapshots.json"))?.context("no snapshot is held")?;
    let staging = Path::new(paths::STAGING).join("postgresql");
    let mut dumped = Dumped { server_version: held.server_version, databases: Vec::new() };
    for database in &held.databases {
        let directory = directory(&database.name);
        let path = staging.join(&directory);
        // An earlier attempt of this run.
        if path.exists() {
            fs::remove_dir_all(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
        one(&client, database, &path).await?;
        dumped.databases.push(DumpedDatabase { name: database.name.clone(), directory, bytes: size(&path) });
    }
    globals(&client, &staging).await?;
    write_json(&staging.join("postgresql.json"), &dumped)
}

async fn one(client: &Client<'_>, database: &HeldDatabase, path: &Path) -> Result<()> {
    let mut command = client.command("pg_dump", &database.name);
    // Not compressed: the repository compresses, and finds yesterday's rows again only if it sees them.
    command.args(["--format=directory", "--compress=0"]);
    command.arg(format!("--jobs={}", client.config.jobs)).arg(format!("--snapshot={}", database.snapshot)).arg("--file").arg(path);
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().context("cannot run pg_dump: is it installed?")?;
    let mut tick = interval(Duration::from_secs(1));
    let end = child.wait_with_output();
    tokio::pin!(end);
    let output = loop {
        tokio::select! {
            output = &mut end => break output?,
            _ = tick.tick() => {
                let text = format!("dumping {} {} of {}", database.name, BinaryBytes(size(path)), BinaryBytes(database.bytes));
                notify::status(&text);
            }
        }
    };
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "pg_dump of {}: {}: {}", client.place(&database.name), output.status, said.trim());
    let list = client.command_offline("pg_restore").arg("--list").arg(path).output().await.context("cannot run pg_restore")?;
    ensure!(list.status.success() && !list.stdout.is_empty(), "pg_restore cannot read the dump of '{}'", database.name);
    Ok(())
}

/// Roles and tablespaces; passwords only where the role may read them.
async fn globals(client: &Client<'_>, staging: &Path) -> Result<()> {
    let superuser = client.query("postgres", "SELECT rolsuper FROM pg_roles WHERE rolname = current_user").await?;
    let mut command = client.command("pg_dumpall", "postgres");
    command.arg("--globals-only").arg("--file").arg(staging.join("globals.sql"));
    if superuser.first().map(String::as_str) != Some("t") {
        command.arg("--no-role-passwords");
    }
    let output = command.output().await.context("cannot run pg_dumpall: is it installed?")?;
    ensure!(output.status.success(), "pg_dumpall: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

/// A database's name as a file name: anything unusual percent-encoded.
fn directory(name: &str) -> String {
    let encode = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    name.bytes().map(encode).collect()
}

/// Bytes in a directory of files.
fn size(path: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    entries.flatten().filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::directory;

    #[test]
    fn no_name_of_a_database_can_leave_its_directory() {
        assert_eq!(directory("gitlabhq_production"), "gitlabhq_production");
        assert_eq!(directory("../a b"), "%2E%2E%2Fa%20b");
    }
}
