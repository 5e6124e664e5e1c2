//! Every database of the run, restored into a PostgreSQL of its own, and its rows counted.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::User;
use rustix::process::Signal;

use crate::config::{Config, Postgresql};
use crate::finding::Finding;
use crate::process;
use crate::runs::{Database, Manifest};
use crate::steps::postgresql::client::{Client, DEBIAN, literal, major, versions};
use crate::steps::postgresql::load;
use crate::steps::user;
use crate::systemd::notify;

use super::server::{Manner, Server, ensure_short};
use crate::steps::verify::scratch::{Scratch, give};

/// Those that initdb has made in the servers that a GitLab can have.
const SUPERUSERS: [&str; 2] = ["postgres", "gitlab-psql"];
const PORT: u16 = 5432;
/// How many tables that differ are worth naming.
const NAMED: usize = 5;
/// For a server that nobody will miss: fast, quiet and alone.
const SETTINGS: [&str; 9] = [
    "listen_addresses=",
    "unix_socket_permissions=0777",
    "fsync=off",
    "full_page_writes=off",
    "synchronous_commit=off",
    "autovacuum=off",
    "wal_level=minimal",
    "max_wal_senders=0",
    "logging_collector=off",
];

/// Restores `dumps` (directory names and paths) and tells how each compares with the manifest.
///
/// # Errors
/// If the place to work in fails.
pub(in crate::steps::verify) async fn restore(
    config: &Config,
    manifest: &Manifest,
    dumps: &[(String, PathBuf)],
    scratch: &Scratch,
    tell: &mut dyn FnMut(Finding),
) -> Result<()> {
    let Some(directory) = dumps.first().and_then(|(_, path)| path.parent()) else { return Ok(()) };
    let globals = fs::read_to_string(directory.join("globals.sql")).context("the run has no globals.sql with the roles");
    let started = match globals {
        Ok(globals) => begin(config, manifest, &globals, scratch).await.map(|server| (server, globals)),
        Err(error) => Err(error),
    };
    let (server, globals) = match started {
        Ok(started) => started,
        Err(error) => {
            tell(Finding::of("drill postgresql", Err(error)));
            return Ok(());
        }
    };
    let client = Client::new(&server.config)?;
    tell(Finding::of("drill roles", roles(&client, &globals, &server).await));
    for (number, (name, path)) in dumps.iter().enumerate() {
        notify::status(&format!("restoring database {name} for the drill"));
        let recorded = manifest.databases.iter().find(|database| database.directory == *name);
        let seen = database(&client, &format!("drill{number}"), path, recorded).await;
        tell(Finding::of(format!("drill database {name}"), seen));
    }
    Ok(())
}

/// The server, and how to reach it.
struct Running {
    config: Postgresql,
    place: PathBuf,
    user: Option<User>,
    _server: Server,
}

async fn begin(config: &Config, manifest: &Manifest, globals: &str, scratch: &Scratch) -> Result<Running> {
    let configured = config.postgresql.as_ref();
    let needed: u64 = manifest.databases.iter().map(|database| database.bytes).sum();
    let free = scratch.free()?;
    let words = |bytes| indicatif::BinaryBytes(bytes).to_string();
    ensure!(free > needed, "{} are free, but the databases take {}: --scratch names another place", words(free), words(needed));
    let version = manifest.versions.iter().find(|component| component.name == "postgresql").and_then(|found| major(&found.version));
    let programs = programs(configured.and_then(|postgresql| postgresql.bin_dir.as_deref()), version.unwrap_or(0))?;
    let user = user::sandbox()?;
    let place = scratch.place_of("drill-postgresql", user.as_ref())?;
    ensure_short(&place.join(format!(".s.PGSQL.{PORT}")))?;

    let superuser = superuser(globals, configured);
    let data = place.join("data");
    notify::status("making a server for the drill");
    let mut initdb = Manner { user: user.as_ref(), place: &place, signal: Signal::KILL }.command(&programs.join("initdb"));
    initdb.args(["--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]).arg(format!("--username={superuser}"));
    process::run(initdb.arg("--pgdata").arg(&data)).context("initdb cannot make a database cluster for the drill")?;

    let sockets = format!("unix_socket_directories=\"{}\"", place.display().to_string().replace('"', "\"\""));
    let mut words = vec!["-D".to_owned(), data.to_string_lossy().into_owned()];
    let settings = SETTINGS.iter().map(ToString::to_string).chain([sockets, format!("port={PORT}")]);
    words.extend(settings.flat_map(|setting| ["-c".to_owned(), setting]));
    // SIGQUIT: an immediate shutdown, with all its children.
    let manner = Manner { user: user.as_ref(), place: &place, signal: Signal::QUIT };
    let mut server = Server::start(&manner, &programs.join("postgres"), &words)?;
    let config = Postgresql {
        host: place.to_string_lossy().into_owned(),
        port: PORT,
        os_user: String::new(),
        user: superuser,
        databases: None,
        jobs: configured.map_or(1, |postgresql| postgresql.jobs),
        password: None,
        bin_dir: Some(programs),
    };
    let client = Client::new(&config)?;
    server.answering(async || client.query(load::MAINTENANCE, "SELECT 1;\n").await.map(Some)).await?;
    drop(client);
    Ok(Running { config, place, user, _server: server })
}

/// The directory with the server's programs: the configured one, or that of the newest server. Neither may be older than `version`.
fn programs(configured: Option<&Path>, version: u32) -> Result<PathBuf> {
    let major_in = |directory: &Path| {
        let there = ["initdb", "postgres", "pg_restore"].iter().all(|name| process::find(name, [directory.to_owned()]).is_some());
        let said = there.then(|| process::run(Command::new(directory.join("postgres")).arg("--version")).ok());
        said.flatten().and_then(|said| major(&said))
    };
    if let Some(directory) = configured.filter(|directory| major_in(directory).is_some_and(|major| major >= version)) {
        return Ok(directory.to_owned());
    }
    let candidates = [versions(DEBIAN, ""), versions("/usr", "pgsql-"), process::search_path()].concat();
    match candidates.into_iter().filter_map(|directory| Some((major_in(&directory)?, directory))).max() {
        Some((major, directory)) if major >= version => Ok(directory),
        Some((major, _)) => {
            bail!("the run is of PostgreSQL {version}, and the newest server here is {major}: install {version}'s, which need not run")
        }
        None => bail!(
            "there are no programs of a PostgreSQL server here (initdb, postgres): install them, or name them by [postgresql] bin-dir"
        ),
    }
}

/// The role that initdb made in the server that was backed up: what it granted can only be granted again by it.
fn superuser(globals: &str, configured: Option<&Postgresql>) -> String {
    let made =
        |role: &&str| globals.lines().any(|line| line == format!("CREATE ROLE \"{role}\";") || line == format!("CREATE ROLE {role};"));
    let usual = SUPERUSERS.iter().find(|role| made(role)).map(|role| (*role).to_owned());
    usual.or_else(|| configured.map(|postgresql| postgresql.user.clone())).unwrap_or_else(|| SUPERUSERS[0].to_owned())
}

/// Makes the roles, and the tablespaces in directories of their own.
async fn roles(client: &Client<'_>, globals: &str, server: &Running) -> Result<String> {
    let made = load::roles(client, globals).await?;
    let tablespaces = load::tablespaces(globals);
    for (number, tablespace) in tablespaces.iter().enumerate() {
        let directory = server.place.join(format!("tablespace{number}"));
        fs::create_dir(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        give(&directory, server.user.as_ref())?;
        let sql = format!("CREATE TABLESPACE {tablespace} LOCATION {};\n", literal(&directory.to_string_lossy()));
        client.query(load::MAINTENANCE, &sql).await.with_context(|| format!("cannot make tablespace {tablespace}"))?;
    }
    Ok(format!("{} restored, and {} tablespaces", made.len(), tablespaces.len()))
}

/// Restores one database as `name`, and compares its rows with what the manifest has of it.
async fn database(client: &Client<'_>, name: &str, dump: &Path, recorded: Option<&Database>) -> Result<String> {
    let unknown = Database::default();
    load::create(client, name, recorded.unwrap_or(&unknown)).await?;
    load::fill(client, name, dump, &[]).await?;
    let Some(recorded) = recorded else { return Ok("restored; the manifest is too old to tell how many rows there were".to_owned()) };
    // ONLY: what inherits from a table is counted by itself.
    let sql: String = recorded.tables.keys().map(|table| format!("SELECT count(*) FROM ONLY {table};\n")).collect();
    let counts = client.query(name, &sql).await.context("the restored rows cannot be counted")?;
    ensure!(counts.len() == recorded.tables.len(), "{} tables were to be counted, and {} were", recorded.tables.len(), counts.len());
    let differs = |((table, rows), count): ((&String, &u64), &String)| {
        (*count != rows.to_string()).then(|| format!("table {table} has {count} rows, and the manifest says {rows}"))
    };
    let different: Vec<String> = recorded.tables.iter().zip(&counts).filter_map(differs).collect();
    let rest = different.len().saturating_sub(NAMED);
    let more = if rest > 0 { format!("; and {rest} more") } else { String::new() };
    ensure!(different.is_empty(), "{}{more}", different[..different.len().min(NAMED)].join("; "));
    let rows: u64 = recorded.tables.values().sum();
    Ok(format!("restored, {rows} rows in {} tables as in the manifest", counts.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_superuser_has_its_old_name() {
        assert_eq!(superuser("CREATE ROLE git;\nCREATE ROLE \"gitlab-psql\";\n", None), "gitlab-psql");
        assert_eq!(superuser("CREATE ROLE git;\nCREATE ROLE postgres;\n", None), "postgres");
        assert_eq!(superuser("CREATE ROLE git;\n", None), "postgres");
    }
}
