//! Dumps every database from its held snapshot.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval};

use super::client::{Client, database_option, directory_name, option};
use super::{SNAPSHOTS, Snapshot, Snapshots};
use crate::config::Config;
use crate::paths;
use crate::runs::{read_json, write_json};
use crate::steps::{notify, process};

/// What is in the directory, for the manifest.
#[derive(Serialize)]
struct Dumps {
    server_version: String,
    databases: Vec<Dump>,
}

#[derive(Serialize)]
struct Dump {
    name: String,
    directory: String,
    bytes: u64,
}

/// Dumps the databases that [`super::hold`] holds, then the roles and tablespaces.
pub async fn dump(config: &Config) -> Result<()> {
    let client = Client::new(config)?;
    let path = Path::new(paths::PGSNAPSHOT).join(SNAPSHOTS);
    let snapshots: Snapshots = read_json(&path)?.with_context(|| format!("{} is not there: no snapshot is held", path.display()))?;
    let staging = Path::new(paths::STAGING).join("postgresql");
    fs::create_dir_all(&staging).with_context(|| format!("cannot make {}", staging.display()))?;
    let summary = staging.join("postgresql.json");
    // Says that all is there, which it is not yet.
    remove(&summary)?;

    let mut databases = Vec::new();
    for snapshot in &snapshots.databases {
        let directory = directory_name(&snapshot.name);
        let bytes = database(&client, snapshot, &staging.join(&directory)).await?;
        databases.push(Dump { name: snapshot.name.clone(), directory, bytes });
    }
    globals(&client, &staging.join("globals.sql")).await?;
    write_json(&summary, &Dumps { server_version: snapshots.server_version, databases })?;
    notify::status("all databases are dumped");
    Ok(())
}

/// Dumps one database and checks the dump; its size.
async fn database(client: &Client<'_>, snapshot: &Snapshot, directory: &Path) -> Result<u64> {
    let name = &snapshot.name;
    remove(directory)?;
    let mut command = client.command("pg_dump", Some(name))?;
    // Uncompressed, so that the repository finds yesterday's tables in it; it compresses itself. Not synced: it reads them now.
    command.args(["-w", "--format=directory", "--compress=0", "--no-sync"]);
    command.arg(format!("--jobs={}", client.postgresql.jobs)).arg(format!("--snapshot={}", snapshot.snapshot));
    command.arg(option("--file=", directory)).stdout(Stdio::null());
    let mut child = command.spawn().context("cannot run pg_dump")?;
    let errors = process::drain(child.stderr.take());

    let mut tick = interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let status = loop {
        tokio::select! {
            status = child.wait() => break status.context("cannot wait for pg_dump")?,
            _ = tick.tick() => notify::status(&progress(name, size(directory), snapshot.bytes)),
        }
    };
    if !status.success() {
        let words = errors.await.unwrap_or_default();
        bail!("pg_dump of database {name:?} of {} failed ({status}): {words}", client.place());
    }
    verify(client, name, directory).await?;
    Ok(size(directory))
}

/// `pg_restore` can read the table of contents.
async fn verify(client: &Client<'_>, name: &str, directory: &Path) -> Result<()> {
    let mut command = client.command("pg_restore", None)?;
    let output = command.arg("--list").arg(directory).output().await.context("cannot run pg_restore")?;
    ensure!(
        output.status.success() && !output.stdout.trim_ascii().is_empty(),
        "the dump of database {name:?} cannot be read back: pg_restore --list {}: {}",
        directory.display(),
        process::tail(&output.stderr)
    );
    Ok(())
}

/// Roles and tablespaces, which belong to no database.
async fn globals(client: &Client<'_>, path: &Path) -> Result<()> {
    notify::status("dumping roles and tablespaces");
    let superuser = client.query(client.maintenance(), "SHOW is_superuser").await? == "on";
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut command = client.command("pg_dumpall", None)?;
    command.args(["-w", "--globals-only", "--no-sync"]).stdout(file);
    if !superuser {
        // Only a superuser may read pg_authid.
        command.arg("--no-role-passwords");
    }
    if client.postgresql.databases.is_some() {
        // The role may connect to nothing else.
        command.args(database_option(client.maintenance()));
    }
    let output = command.output().await.context("cannot run pg_dumpall")?;
    ensure!(
        output.status.success(),
        "pg_dumpall --globals-only of {} failed ({}): {}",
        client.place(),
        output.status,
        process::tail(&output.stderr)
    );
    ensure!(size(path) > 0, "pg_dumpall --globals-only of {} gave nothing", client.place());
    Ok(())
}

/// Removes what an earlier attempt left under a name of ours; never follows a link.
fn remove(path: &Path) -> Result<()> {
    let removed = match path.symlink_metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
    };
    removed.with_context(|| format!("cannot remove {}, left by an earlier attempt", path.display()))
}

/// The bytes in a file or, however deep, in a directory. What vanishes meanwhile counts nothing.
fn size(path: &Path) -> u64 {
    let mut total = 0;
    let mut pending: Vec<PathBuf> = vec![path.to_owned()];
    while let Some(path) = pending.pop() {
        match path.symlink_metadata() {
            Ok(metadata) if metadata.is_dir() => {
                pending.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
            }
            Ok(metadata) => total += metadata.len(),
            Err(_) => {}
        }
    }
    total
}

/// The database's size includes its indexes, which a dump leaves out: the end may come early.
fn progress(name: &str, done: u64, total: u64) -> String {
    const GIB: f64 = (1_u64 << 30) as f64;
    format!("dumping {name} {:.1} of {:.1} GiB", done as f64 / GIB, total as f64 / GIB)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn sizes_and_leftovers() {
        let directory = tempfile::tempdir().unwrap();
        let dump = directory.path().join("dump");
        fs::create_dir_all(dump.join("deep")).unwrap();
        fs::write(dump.join("a"), "12345").unwrap();
        fs::write(dump.join("deep/b"), "678").unwrap();
        assert_eq!(size(&dump), 8);
        remove(&dump).unwrap();
        assert!(!dump.exists());
        remove(&dump).unwrap();
    }

    #[test]
    fn progress_in_gib() {
        assert_eq!(progress("gitlabhq_production", 1_288_490_189, 3_650_722_202), "dumping gitlabhq_production 1.2 of 3.4 GiB");
    }
}
