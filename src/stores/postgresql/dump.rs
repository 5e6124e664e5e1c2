//! Dumps every database from its held snapshot, while GitLab is up again.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use indicatif::BinaryBytes;
use tokio::time::interval;

use crate::config::Config;
use crate::host::beneath::Directory;
use crate::host::{own, process};
use crate::paths::{self, RootDirectory};
use crate::runs::Database;
use crate::runs::record::{read_json, write_json};
use crate::systemd::notify;

use super::client::Client;
use super::globals::Globals;
use super::hold::NODES;
use super::quoting::{dbname, literal};
use super::session::Session;
use super::toc;
use super::{Dumped, HeldSnapshot, HeldSnapshots, file_name, record_path, snapshots_path};

/// The properties of a database that are not in its dump. As JSON, because the columns of
/// pg_database depend on the server's version.
const PROPERTIES: &str = "SELECT pg_catalog.jsonb_build_object('name', datname, 'directory', '', \
                          'owner', pg_catalog.pg_get_userbyid(datdba), \
    'encoding', pg_catalog.pg_encoding_to_char(encoding), 'collate', datcollate, 'ctype', \
    datctype, 'provider', to_jsonb(d)->>'datlocprovider', \
    'locale', coalesce(to_jsonb(d)->>'daticulocale', to_jsonb(d)->>'datlocale'), 'bytes', 0, \
    'template', datistemplate, 'tablespace', \
    (SELECT t.spcname FROM pg_catalog.pg_tablespace t WHERE t.oid OPERATOR(pg_catalog.=) \
    d.dattablespace AND t.spcname OPERATOR(pg_catalog.<>) 'pg_default'))::text \
    FROM pg_catalog.pg_database d WHERE datname = pg_catalog.current_database()";
/// The encoding of the dump, which does not depend on the owner's settings. The server cannot
/// convert two of its encodings to UTF-8.
const ENCODING: &str = "SELECT CASE WHEN e IN ('SQL_ASCII', 'MULE_INTERNAL') THEN e ELSE 'UTF8' \
                        END \
    FROM (SELECT pg_catalog.pg_encoding_to_char(encoding)::text AS e FROM pg_catalog.pg_database \
    WHERE datname = pg_catalog.current_database()) d";
const TABLES: &str = "SELECT c.oid, pg_catalog.format('%I.%I', n.nspname, c.relname) \
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE \
    c.relkind IN ('r', 'm')";

/// Dumps into the staging directory: each database into a directory of its own, and the roles,
/// settings and privileges of the server.
pub async fn dump(config: &Config, root: &RootDirectory) -> Result<()> {
    let Some(postgresql) = &config.postgresql else { return Ok(()) };
    let client = Client::new(postgresql)?;
    let staging = root.at(paths::STAGING).join("postgresql");
    let result_file = staging.join("postgresql.json");
    // This file is written last. If it exists, the dump is complete: systemd starts this unit again
    // when a unit that requires it is retried.
    if result_file.exists() {
        return Ok(());
    }
    let held = read_json(&snapshots_path(root))?;
    let held: HeldSnapshots = held.context(
        "the snapshots of the window are gone, and new ones would not match the other stores",
    )?;
    let names: Vec<String> = held.databases.iter().map(|database| database.name.clone()).collect();
    let globals = dump_globals(&client, &staging, &names).await?;
    let staging_directory = Directory::open(&staging)?;
    let inaccessible = client.inaccessible_databases().await?;
    let of_restores = client.databases_of_restores().await?.into_iter().map(|name| {
        format!("database '{name}' is left over from a restore, and not in the backup")
    });
    let left_out = inaccessible.into_iter().chain(of_restores).collect();
    let mut dumped = Dumped {
        server_version: held.server_version,
        databases: Vec::new(),
        globals: Some(globals),
        left_out,
    };
    for database in &held.databases {
        // An earlier attempt of this run finished this dump. pg_dump itself writes its files; this
        // record, which is written when they are complete, makes them a dump.
        if let Some(complete) = read_json(&record_path(root, &database.name))? {
            dumped.databases.push(complete);
            continue;
        }
        let directory = file_name(&database.name);
        staging_directory.remove(OsStr::new(&directory))?;
        let complete = dump_database(&client, database, &staging, directory).await?;
        write_json(&record_path(root, &database.name), &complete)?;
        dumped.databases.push(complete);
    }
    write_json(&result_file, &dumped)
}

/// Dumps one database into `directory` of the staging directory, and checks the dump. Returns what
/// the manifest records about the database.
async fn dump_database(
    client: &Client,
    database: &HeldSnapshot,
    staging: &Path,
    directory: String,
) -> Result<Database> {
    let path = staging.join(&directory);
    let session = client.connect(&database.name).await?;
    let encoding: String = session.value(ENCODING, &[]).await?;
    run_pg_dump(client, session.major, &encoding, database, &path).await?;
    ensure_readable(client, session.major, database, &path).await?;
    let tables = count_rows(&session, database, &path).await?;
    ensure_not_rewritten(&session, database).await?;
    let properties: String = session.value(PROPERTIES, &[]).await?;
    let properties: Database = serde_json::from_str(&properties)
        .context("cannot parse the server's answer about a database")?;
    Ok(Database {
        directory,
        tables,
        bytes: database.bytes,
        sequences: database.sequences.clone(),
        ..properties
    })
}

/// Fails if a table has been emptied or rewritten since the window: then its rows are gone from
/// every snapshot.
async fn ensure_not_rewritten(session: &Session, database: &HeldSnapshot) -> Result<()> {
    let numbers: Vec<u32> = database.nodes.keys().copied().collect();
    for row in session.rows(NODES, &[&numbers]).await? {
        let (number, node): (u32, u32) = (row.try_get(0)?, row.try_get(1)?);
        if database.nodes.get(&number) != Some(&node) {
            let name: String =
                session.value("SELECT ($1::oid)::pg_catalog.regclass::text", &[&number]).await?;
            bail!(
                "table {name} of database '{}' was emptied or rewritten while it was dumped: its \
                 rows are not in the dump",
                database.name
            );
        }
    }
    Ok(())
}

/// Runs pg_dump on the snapshot of one database.
async fn run_pg_dump(
    client: &Client,
    major: u32,
    encoding: &str,
    database: &HeldSnapshot,
    path: &Path,
) -> Result<()> {
    let mut command = client.command("pg_dump", &database.name, major)?;
    // Not compressed: the repository compresses, and can deduplicate rows only if they are not
    // compressed before.
    command.args(["--format=directory", "--compress=0"]);
    command.arg(format!("--encoding={encoding}"));
    command
        .arg(format!("--jobs={}", client.login.config.jobs))
        .arg(format!("--snapshot={}", database.snapshot))
        .arg("--file")
        .arg(path);
    let mut tick = interval(Duration::from_secs(1));
    let end = process::to_its_end(&mut command);
    tokio::pin!(end);
    let ended = loop {
        tokio::select! {
            ended = &mut end => break ended?,
            _ = tick.tick() => {
                let (done, all) = (BinaryBytes(size(path)), BinaryBytes(database.bytes));
                notify::status(&format!("dumping {} {done} of {all}", database.name));
            }
        }
    };
    ensure!(
        ended.status.success(),
        "pg_dump of {}: {}: {}",
        client.login.describe(&database.name),
        ended.status,
        ended.said
    );
    Ok(())
}

/// Fails if pg_restore cannot list the dump of one database.
async fn ensure_readable(
    client: &Client,
    major: u32,
    database: &HeldSnapshot,
    path: &Path,
) -> Result<()> {
    let list = client
        .command_for("pg_restore", major)
        .arg("--list")
        .arg(path)
        .output()
        .await
        .context("cannot run pg_restore")?;
    ensure!(
        list.status.success() && !list.stdout.is_empty(),
        "pg_restore cannot read the dump of '{}'",
        database.name
    );
    Ok(())
}

/// Counts the rows of each table in the dump. A drill compares them with the restored rows.
async fn count_rows(
    session: &Session,
    database: &HeldSnapshot,
    path: &Path,
) -> Result<BTreeMap<String, u64>> {
    session.run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    session.run(&format!("SET TRANSACTION SNAPSHOT {}", literal(&database.snapshot))).await?;
    let mut names: BTreeMap<u32, String> = BTreeMap::new();
    for row in session.rows(TABLES, &[]).await? {
        names.insert(row.try_get(0)?, row.try_get(1)?);
    }
    session.run("COMMIT").await?;
    let mut tables = BTreeMap::new();
    for entry in toc::read(path)?.into_iter().filter(|entry| entry.kind == "TABLE DATA") {
        let Some(name) = names.remove(&entry.oid) else { continue };
        let file = path.join(format!("{}.dat", entry.id));
        let rows = count_lines(&file).with_context(|| format!("cannot read {}", file.display()))?;
        tables.insert(name, rows);
    }
    Ok(tables)
}

/// Counts the rows in a file of COPY's text format: one line for each row, then `\.`.
fn count_lines(file: &Path) -> std::io::Result<u64> {
    let mut reader = BufReader::with_capacity(1 << 20, own::open(file)?);
    let (mut rows, mut line) = (0, Vec::new());
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line)? == 0 || line == b"\\.\n" {
            return Ok(rows);
        }
        rows += 1;
    }
}

/// Reads the roles, tablespaces, settings and privileges of the server, and also lets pg_dumpall
/// write them to `globals.sql`, for people. Passwords are included only if the role may read them.
async fn dump_globals(client: &Client, staging: &Path, databases: &[String]) -> Result<Globals> {
    let (session, place) = client.connect_anywhere().await?;
    let globals = Globals::read(&session, databases).await?;
    let mut command = client.command("pg_dumpall", &place, session.major)?;
    command
        .arg(format!("--database={}", dbname(&place)))
        .arg("--globals-only")
        .arg("--file")
        .arg(staging.join("globals.sql"));
    if !session
        .value::<bool>("SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user", &[])
        .await?
    {
        command.arg("--no-role-passwords");
    }
    let ended = process::to_its_end(&mut command).await?;
    ensure!(ended.status.success(), "pg_dumpall: {}", ended.said);
    Ok(globals)
}

/// The size of the files in a directory, in bytes.
fn size(path: &Path) -> u64 {
    let Ok(entries) = own::entries(path) else { return 0 };
    entries.flatten().filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_counted_to_the_end_of_the_copy() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (content, expected) in [("\\.\n\n\n", 0), ("a\\nb\t1\n\\N\t2\n\\.\n\n\n", 2)] {
            std::fs::write(file.path(), content).unwrap();
            assert_eq!(count_lines(file.path()).unwrap(), expected, "{content:?}");
        }
    }
}
