//! Every database of the run, restored into a PostgreSQL of its own, and its rows counted.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail, ensure};
use indicatif::BinaryBytes;
use nix::unistd::User;
use rustix::process::Signal;

use crate::config::{Config, Postgresql};
use crate::finding::Finding;
use crate::host::beneath::Directory;
use crate::host::{process, user};
use crate::runs::record::read_json;
use crate::runs::{Database, Manifest};
use crate::stores::inspection::scratch::{Scratch, give};
use crate::stores::inspection::server::{Launch, ScratchServer, ensure_short};
use crate::stores::postgresql::client::{Client, MAINTENANCE};
use crate::stores::postgresql::globals::{Globals, Role};
use crate::stores::postgresql::load::{Loader, Moment};
use crate::stores::postgresql::quoting::{identifier, literal};
use crate::stores::postgresql::session::Session;
use crate::stores::postgresql::versions::{DEBIAN, major, versions};
use crate::stores::postgresql::{Dumped, sandbox, toc};
use crate::systemd::notify;

use crate::values::Timespan;

/// The one that initdb makes where nothing else is known.
const SUPERUSER: &str = "postgres";
const PORT: u16 = 5432;
const TABLES: &str = "SELECT n.nspname::text, c.relname::text, pg_catalog.format('%I.%I', n.nspname, c.relname) \
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'm')";
/// The tables in which extensions keep their configuration: a dump has rows of theirs, and beside
/// these are those that the extension brings.
const OF_EXTENSIONS: &str = "SELECT DISTINCT n.nspname::text, c.relname::text, pg_catalog.format('%I.%I', n.nspname, c.relname) \
    FROM pg_catalog.pg_extension e CROSS JOIN LATERAL pg_catalog.unnest(e.extconfig) AS kept (oid) \
    JOIN pg_catalog.pg_class c ON c.oid = kept.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'r'";
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
pub(super) async fn restore(
    config: &Config,
    manifest: &Manifest,
    dumps: &[(String, PathBuf)],
    scratch: &Scratch,
    tell: &mut dyn FnMut(Finding),
) -> Result<()> {
    let Some(directory) = dumps.first().and_then(|(_, path)| path.parent()) else { return Ok(()) };
    let told: Result<Option<Dumped>> = read_json(&directory.join("postgresql.json"));
    let globals = told.map(|told| told.and_then(|told| told.globals));
    let started = match &globals {
        Ok(globals) => begin(config, manifest, globals.as_ref(), scratch).await,
        Err(error) => Err(anyhow!("{error:#}")),
    };
    let server = match started {
        Ok(server) => server,
        Err(error) => {
            tell(Finding::of("drill postgresql", Err(error)));
            return Ok(());
        }
    };
    let admin = Client::new(&server.config)?;
    let session = admin.connect(MAINTENANCE).await?;
    let made = match globals.ok().flatten() {
        Some(globals) => roles(&session, &globals, &server).await,
        None => owners(&session, dumps).await,
    };
    tell(Finding::of("drill roles", made));
    for (number, (name, path)) in dumps.iter().enumerate() {
        notify::status(&format!("restoring database {name} for the drill"));
        let recorded = manifest.databases.iter().find(|database| database.directory == *name);
        let sandbox = sandbox::make(&admin, &session, &server.config.os_user).await?;
        let loader = Loader { admin: &admin, session: &session, sandbox: Some(&sandbox) };
        let restored = format!("drill{number}");
        let seen = database(&loader, &restored, path, recorded).await;
        if seen.is_err() {
            // It is the role's still, which could not be removed.
            sandbox::silence(&session).await?;
            session.run(&format!("DROP DATABASE IF EXISTS {}", identifier(&restored))).await?;
        }
        sandbox::retire(&session).await?;
        tell(Finding::of(format!("drill database {name}"), seen));
    }
    Ok(())
}

/// The server, and how to reach it.
struct Running {
    config: Postgresql,
    place: PathBuf,
    user: Option<User>,
    _server: ScratchServer,
}

/// Creates a database cluster in the scratch directory, and starts its server.
async fn begin(
    config: &Config,
    manifest: &Manifest,
    globals: Option<&Globals>,
    scratch: &Scratch,
) -> Result<Running> {
    let configured = config.postgresql.as_ref();
    ensure_room(manifest, scratch)?;
    let version = manifest
        .versions
        .iter()
        .find(|component| component.name == "postgresql")
        .and_then(|found| major(&found.version));
    let programs = programs(
        configured.and_then(|postgresql| postgresql.bin_dir.as_deref()),
        version.unwrap_or(0),
    )?;
    let user = user::sandbox()?;
    let place = scratch.place_of("drill-postgresql", user.as_ref())?;
    ensure_short(&place.join(format!(".s.PGSQL.{PORT}")))?;
    let superuser = superuser(globals, configured);
    let mut server = start(&programs, &place, user.as_ref(), &superuser)?;
    let os_user = user.as_ref().map(|user| user.name.clone()).unwrap_or_default();
    let config = Postgresql {
        host: place.to_string_lossy().into_owned(),
        port: PORT,
        restore_os_user: os_user.clone(),
        os_user,
        restore_user: superuser.clone(),
        user: superuser,
        databases: None,
        jobs: configured.map_or(1, |postgresql| postgresql.jobs),
        ddl_wait: Timespan::from_secs(0),
        password: None,
        bin_dir: Some(programs),
    };
    let client = Client::new(&config)?;
    server.wait_for_answer(async || client.connect(MAINTENANCE).await.map(Some)).await?;
    drop(client);
    Ok(Running { config, place, user, _server: server })
}

/// Fails if the databases do not fit into the scratch directory.
fn ensure_room(manifest: &Manifest, scratch: &Scratch) -> Result<()> {
    let needed: u64 = manifest.databases.iter().map(|database| database.bytes).sum();
    let free = scratch.free()?;
    ensure!(
        free > needed,
        "{} are free, but the databases take {}: --scratch names another place",
        BinaryBytes(free),
        BinaryBytes(needed)
    );
    Ok(())
}

/// Has initdb create the cluster, and starts its server on a socket in `place`.
fn start(
    programs: &Path,
    place: &Path,
    user: Option<&User>,
    superuser: &str,
) -> Result<ScratchServer> {
    let data = place.join("data");
    notify::status("making a server for the drill");
    let mut initdb = Launch { user, place, signal: Signal::KILL }.command(&programs.join("initdb"));
    initdb
        .args(["--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"])
        .arg(format!("--username={superuser}"));
    process::run(initdb.arg("--pgdata").arg(&data))
        .context("initdb cannot make a database cluster for the drill")?;
    let sockets =
        format!("unix_socket_directories=\"{}\"", place.display().to_string().replace('"', "\"\""));
    let mut words = vec!["-D".to_owned(), data.to_string_lossy().into_owned()];
    let settings =
        SETTINGS.iter().map(ToString::to_string).chain([sockets, format!("port={PORT}")]);
    words.extend(settings.flat_map(|setting| ["-c".to_owned(), setting]));
    // SIGQUIT: an immediate shutdown, with all its children.
    let launch = Launch { user, place, signal: Signal::QUIT };
    ScratchServer::start(&launch, &programs.join("postgres"), &words)
}

/// The directory with the server's programs: the configured one, or that of the newest server.
/// Neither may be older than `version`.
fn programs(configured: Option<&Path>, version: u32) -> Result<PathBuf> {
    let major_in = |directory: &Path| {
        let there = ["initdb", "postgres", "pg_restore"]
            .iter()
            .all(|name| process::find(name, [directory.to_owned()]).is_some());
        let said = there
            .then(|| process::run(Command::new(directory.join("postgres")).arg("--version")).ok());
        said.flatten().and_then(|said| major(&said))
    };
    if let Some(directory) =
        configured.filter(|directory| major_in(directory).is_some_and(|major| major >= version))
    {
        return Ok(directory.to_owned());
    }
    let candidates =
        [versions(DEBIAN, ""), versions("/usr", "pgsql-"), process::search_path()].concat();
    match candidates
        .into_iter()
        .filter_map(|directory| Some((major_in(&directory)?, directory)))
        .max()
    {
        Some((major, directory)) if major >= version => Ok(directory),
        Some((major, _)) => {
            bail!(
                "the run is of PostgreSQL {version}, and the newest server here is {major}: install {version}'s, which need not run"
            )
        }
        None => bail!(
            "there are no programs of a PostgreSQL server here (initdb, postgres): install them, or name them by [postgresql] bin-dir"
        ),
    }
}

/// The role that initdb made in the server that was backed up: what it granted can only be granted
/// again by it.
fn superuser(globals: Option<&Globals>, configured: Option<&Postgresql>) -> String {
    let first = globals.and_then(|globals| globals.first.clone());
    first
        .or_else(|| configured.map(|postgresql| postgresql.restore_user.clone()))
        .unwrap_or_else(|| SUPERUSER.to_owned())
}

/// Makes the roles, and the tablespaces in directories of their own.
async fn roles(session: &Session, globals: &Globals, server: &Running) -> Result<String> {
    let (made, failed) = globals.make_roles(session).await?;
    failed.iter().for_each(|failure| tracing::warn!("{failure}"));
    for (number, tablespace) in globals.tablespaces.iter().enumerate() {
        let name = format!("tablespace{number}");
        let made = Directory::open(&server.place)?.make(OsStr::new(&name), 0o700)?;
        give(&made, server.user.as_ref())?;
        let directory = server.place.join(name);
        let sql = format!(
            "CREATE TABLESPACE {} LOCATION {}",
            identifier(&tablespace.name),
            literal(&directory.to_string_lossy())
        );
        session
            .run(&sql)
            .await
            .with_context(|| format!("cannot make tablespace {}", tablespace.name))?;
    }
    Ok(format!("{} restored, and {} tablespaces", made.len(), globals.tablespaces.len()))
}

/// A run of old tells its roles only as text for people: those that own something are made, so that
/// it can be loaded.
async fn owners(session: &Session, dumps: &[(String, PathBuf)]) -> Result<String> {
    let mut roles: BTreeSet<String> = BTreeSet::new();
    for (_, path) in dumps {
        roles.extend(toc::read(path)?.into_iter().filter_map(|entry| entry.owner));
    }
    let roles = roles
        .into_iter()
        .map(|name| Role { name, inherit: true, connection_limit: -1, ..Role::default() })
        .collect();
    let (made, _) = Globals { roles, ..Globals::default() }.make_roles(session).await?;
    Ok(format!(
        "{} restored: the run is of an older gitlab-backup, of which only owners are known",
        made.len()
    ))
}

/// Restores one database as `name`, and compares its rows with what the manifest has of it.
async fn database(
    loader: &Loader<'_>,
    name: &str,
    dump: &Path,
    recorded: Option<&Database>,
) -> Result<String> {
    let unknown = Database::default();
    let like = recorded.unwrap_or(&unknown);
    loader.create(name, like).await?;
    let mut counted = Ok(String::new());
    let mut brought = BTreeMap::new();
    // Before it is handed over, and as who filled it: to plan a query runs the code of indexes.
    loader
        .fill(name, dump, &[], async |moment| {
            match moment {
                Moment::Extensions => bring(loader, name, &mut brought).await?,
                Moment::Filled => counted = count(loader, name, recorded, &brought).await,
            }
            Ok(())
        })
        .await?;
    counted
}

/// Counts the rows that extensions bring: they are in no dump.
async fn bring(loader: &Loader<'_>, name: &str, brought: &mut BTreeMap<String, u64>) -> Result<()> {
    let session = loader.sandbox.unwrap_or(loader.admin).connect(name).await?;
    for row in session.rows(OF_EXTENSIONS, &[]).await? {
        let (schema, table, quoted): (String, String, String) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        // Counted once, before anything else can be in it.
        if let Entry::Vacant(place) = brought.entry(quoted) {
            let rows = rows(&session, &schema, &table, place.key()).await?;
            place.insert(rows);
        }
    }
    Ok(())
}

/// The rows of one table.
async fn rows(session: &Session, schema: &str, table: &str, quoted: &str) -> Result<u64> {
    // ONLY: what inherits from a table is counted by itself.
    let sql = format!(
        "SELECT pg_catalog.count(*) FROM ONLY {}.{}",
        identifier(schema),
        identifier(table)
    );
    let count: i64 = session
        .value(&sql, &[])
        .await
        .with_context(|| format!("the rows of table {quoted} cannot be counted"))?;
    u64::try_from(count).with_context(|| format!("table {quoted} has {count} rows"))
}

/// Compares the rows of a database that is still the filler's, but for those that were `brought` by
/// extensions, with what the manifest has of it.
async fn count(
    loader: &Loader<'_>,
    name: &str,
    recorded: Option<&Database>,
    brought: &BTreeMap<String, u64>,
) -> Result<String> {
    let Some(recorded) = recorded else {
        return Ok("restored; the manifest is too old to tell how many rows there were".to_owned());
    };
    let session = loader.sandbox.unwrap_or(loader.admin).connect(name).await?;
    let mut there = BTreeMap::new();
    for row in session.rows(TABLES, &[]).await? {
        let (schema, table, quoted): (String, String, String) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        there.insert(quoted, (schema, table));
    }
    let mut different = Vec::new();
    for (table, rows) in &recorded.tables {
        let Some((schema, name)) = there.get(table) else {
            different.push(format!(
                "table {table} is not there, and the manifest says that it has {rows} rows"
            ));
            continue;
        };
        let count = self::rows(&session, schema, name, table).await?;
        // The manifest has the rows that are in the dump, and no others.
        let own = brought.get(table).copied().unwrap_or(0);
        if count.checked_sub(own) != Some(*rows) {
            let beside = if own > 0 {
                format!(", of which {own} come with its extension")
            } else {
                String::new()
            };
            different.push(format!(
                "table {table} has {count} rows{beside}, and the manifest says {rows}"
            ));
        }
    }
    let rest = different.len().saturating_sub(NAMED);
    let more = if rest > 0 { format!("; and {rest} more") } else { String::new() };
    ensure!(different.is_empty(), "{}{more}", different[..different.len().min(NAMED)].join("; "));
    let rows: u64 = recorded.tables.values().sum();
    Ok(format!("restored, {rows} rows in {} tables as in the manifest", recorded.tables.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_superuser_has_its_old_name() {
        let globals = Globals { first: Some("gitlab-psql".to_owned()), ..Globals::default() };
        assert_eq!(superuser(Some(&globals), None), "gitlab-psql");
        assert_eq!(superuser(None, None), "postgres");
    }
}
