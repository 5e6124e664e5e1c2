//! Dumps every database from its held snapshot, GitLab being up again.

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
use crate::paths;
use crate::runs::Database;
use crate::runs::record::{read_json, write_json};
use crate::systemd::notify;

use super::client::Client;
use super::globals::Globals;
use super::hold::NODES;
use super::quoting::{dbname, literal};
use super::session::Session;
use super::toc;
use super::{Dumped, Held, HeldDatabase, directory, dumped as whole};

/// What a dump does not say of its database. Through JSON: every version of the server has other
/// columns.
const PROPERTIES: &str = "SELECT pg_catalog.jsonb_build_object('name', datname, 'directory', '', 'owner', pg_catalog.pg_get_userbyid(datdba), \
    'encoding', pg_catalog.pg_encoding_to_char(encoding), 'collate', datcollate, 'ctype', datctype, 'provider', to_jsonb(d)->>'datlocprovider', \
    'locale', coalesce(to_jsonb(d)->>'daticulocale', to_jsonb(d)->>'datlocale'), 'bytes', 0, 'template', datistemplate, 'tablespace', \
    (SELECT t.spcname FROM pg_catalog.pg_tablespace t WHERE t.oid OPERATOR(pg_catalog.=) d.dattablespace AND t.spcname OPERATOR(pg_catalog.<>) 'pg_default'))::text \
    FROM pg_catalog.pg_database d WHERE datname = pg_catalog.current_database()";
/// Of the dump, whatever its owner has set for the database. Two of the server's it can make UTF-8
/// of nothing.
const ENCODING: &str = "SELECT CASE WHEN e IN ('SQL_ASCII', 'MULE_INTERNAL') THEN e ELSE 'UTF8' END \
    FROM (SELECT pg_catalog.pg_encoding_to_char(encoding)::text AS e FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()) d";
const TABLES: &str = "SELECT c.oid, pg_catalog.format('%I.%I', n.nspname, c.relname) \
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'm')";

/// Dumps into the staging area: a directory for each database, and what belongs to none of them.
pub async fn dump(config: &Config) -> Result<()> {
    let Some(postgresql) = &config.postgresql else { return Ok(()) };
    let client = Client::new(postgresql)?;
    let staging = Path::new(paths::STAGING).join("postgresql");
    let told = staging.join("postgresql.json");
    // Written last. Whatever requires the dump and is tried again has systemd start this again.
    if told.exists() {
        return Ok(());
    }
    let held = read_json(&Path::new(paths::PGSNAPSHOT).join("snapshots.json"))?;
    let held: Held = held.context(
        "the snapshot of the window is not held any more, and another would be of another moment",
    )?;
    let names: Vec<String> = held.databases.iter().map(|database| database.name.clone()).collect();
    let globals = globals(&client, &staging, &names).await?;
    let place = Directory::open(&staging)?;
    let closed = client.closed().await?;
    let beside = client
        .beside()
        .await?
        .into_iter()
        .map(|name| format!("database '{name}' is left of a restore, and not in the backup"));
    let left_out = closed.into_iter().chain(beside).collect();
    let mut dumped = Dumped {
        server_version: held.server_version,
        databases: Vec::new(),
        globals: Some(globals),
        left_out,
    };
    for database in &held.databases {
        // An earlier attempt of this run finished this dump. pg_dump itself writes its files; this
        // record, which is written when they are whole, makes them a dump.
        if let Some(whole) = read_json(&whole(&database.name))? {
            dumped.databases.push(whole);
            continue;
        }
        let directory = directory(&database.name);
        let path = staging.join(&directory);
        place.remove(OsStr::new(&directory))?;
        let session = client.connect(&database.name).await?;
        let encoding: String = session.value(ENCODING, &[]).await?;
        one(&client, session.major, &encoding, database, &path).await?;
        let tables = rows(&session, database, &path).await?;
        unchanged(&session, database).await?;
        let properties: String = session.value(PROPERTIES, &[]).await?;
        let properties: Database = serde_json::from_str(&properties)
            .context("the server's answer about a database cannot be understood")?;
        let properties = Database {
            directory,
            tables,
            bytes: database.bytes,
            sequences: database.sequences.clone(),
            ..properties
        };
        write_json(&whole(&database.name), &properties)?;
        dumped.databases.push(properties);
    }
    write_json(&told, &dumped)
}

/// Fails by its name if a table's rows are not where they were in the window: no snapshot has them
/// then.
async fn unchanged(session: &Session, database: &HeldDatabase) -> Result<()> {
    let numbers: Vec<u32> = database.nodes.keys().copied().collect();
    for row in session.rows(NODES, &[&numbers]).await? {
        let (number, node): (u32, u32) = (row.try_get(0)?, row.try_get(1)?);
        if database.nodes.get(&number) != Some(&node) {
            let name: String =
                session.value("SELECT ($1::oid)::pg_catalog.regclass::text", &[&number]).await?;
            bail!(
                "table {name} of database '{}' was emptied or rewritten while it was dumped: its rows are not in the dump",
                database.name
            );
        }
    }
    Ok(())
}

/// Dumps one database.
async fn one(
    client: &Client,
    major: u32,
    encoding: &str,
    database: &HeldDatabase,
    path: &Path,
) -> Result<()> {
    let mut command = client.command("pg_dump", &database.name, major)?;
    // Not compressed: the repository compresses, and finds yesterday's rows again only if it sees
    // them.
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
                let text = format!("dumping {} {} of {}", database.name, BinaryBytes(size(path)), BinaryBytes(database.bytes));
                notify::status(&text);
            }
        }
    };
    ensure!(
        ended.status.success(),
        "pg_dump of {}: {}: {}",
        client.login.place(&database.name),
        ended.status,
        ended.said
    );
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

/// How many rows of each table are in the dump: what a restore of it must bring back.
async fn rows(
    session: &Session,
    database: &HeldDatabase,
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
        tables
            .insert(name, lines(&file).with_context(|| format!("cannot read {}", file.display()))?);
    }
    Ok(tables)
}

/// Rows in a file of COPY's text format: a line each, then `\.`.
fn lines(file: &Path) -> std::io::Result<u64> {
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

/// Roles, tablespaces and what belongs to the databases; as text for people too. Passwords only
/// where the role may read them.
async fn globals(client: &Client, staging: &Path, databases: &[String]) -> Result<Globals> {
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

/// Bytes in a directory of files.
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
            assert_eq!(lines(file.path()).unwrap(), expected, "{content:?}");
        }
    }
}
