//! Restores every database of the run into a throwaway PostgreSQL server, and counts the rows.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
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
use crate::stores::postgresql::{Dumped, POSTGRESQL, sandbox, toc};
use crate::systemd::notify;

use crate::values::Timespan;

/// The bootstrap superuser of the throwaway server, if that of the backed up server is unknown.
const SUPERUSER: &str = "postgres";
const PORT: u16 = 5432;
const TABLES: &str = "SELECT n.nspname::text, c.relname::text, pg_catalog.format('%I.%I', \
                      n.nspname, c.relname) \
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE \
    c.relkind IN ('r', 'm')";
/// The configuration tables of extensions. A dump has only the rows that the extension itself does
/// not create.
const OF_EXTENSIONS: &str = "SELECT DISTINCT n.nspname::text, c.relname::text, \
                             pg_catalog.format('%I.%I', n.nspname, c.relname) \
    FROM pg_catalog.pg_extension e CROSS JOIN LATERAL pg_catalog.unnest(e.extconfig) AS kept (oid) \
    JOIN pg_catalog.pg_class c ON c.oid = kept.oid JOIN pg_catalog.pg_namespace n ON n.oid = \
    c.relnamespace WHERE c.relkind = 'r'";
/// How many tables that differ are named in a finding.
const MAX_DIFFERENCES: usize = 5;
/// The settings of the throwaway server: fast instead of durable, and without network.
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

/// Restores `dumps` (directory names and paths), and reports how each compares with the manifest.
///
/// # Errors
/// If the drill itself cannot continue. An error in a dump is a finding.
pub(super) async fn restore(
    config: &Config,
    manifest: &Manifest,
    dumps: &[(String, PathBuf)],
    scratch: &Scratch,
    report: &mut dyn FnMut(Finding),
) -> Result<()> {
    // A run without databases has nothing to restore.
    let Some(directory) = dumps.first().and_then(|(_, path)| path.parent()) else { return Ok(()) };
    let started = async {
        let record: Option<Dumped> = read_json(&directory.join("postgresql.json"))?;
        let globals = record.and_then(|record| record.globals);
        let server = start_server(config, manifest, globals.as_ref(), scratch).await?;
        Ok((server, globals))
    };
    let (server, globals) = match started.await {
        Ok(started) => started,
        Err(error) => {
            report(Finding::of("drill postgresql", Err(error)));
            return Ok(());
        }
    };
    let admin = Client::new(&server.config)?;
    let session = admin.connect(MAINTENANCE).await?;
    let result = match globals {
        Some(globals) => create_globals(&session, &globals, &server).await,
        None => create_owners(&session, dumps).await,
    };
    report(Finding::of("drill roles", result));
    for (number, (name, path)) in dumps.iter().enumerate() {
        notify::status(&format!("restoring database {name} for the drill"));
        let recorded = manifest.databases.iter().find(|database| database.directory == *name);
        let sandbox = sandbox::create(&admin, &session, &server.config.os_user).await?;
        let loader = Loader { admin: &admin, session: &session, sandbox: Some(&sandbox) };
        let restored = format!("drill{number}");
        let result = restore_and_compare(&loader, &restored, path, recorded).await;
        if result.is_err() {
            // The role still owns objects in the database, and could not be dropped.
            sandbox::lock_out(&session).await?;
            session.run(&format!("DROP DATABASE IF EXISTS {}", identifier(&restored))).await?;
        }
        sandbox::drop_role(&session).await?;
        report(Finding::of(format!("drill database {name}"), result));
    }
    Ok(())
}

/// The throwaway server, and how to connect to it.
struct DrillServer {
    config: Postgresql,
    /// The directory of the database cluster, the socket and the tablespaces.
    place: PathBuf,
    /// The account of the server; if `None`, that of this process.
    user: Option<User>,
    _server: ScratchServer,
}

/// Creates a database cluster in the scratch directory, starts its server, and waits until it
/// accepts connections.
async fn start_server(
    config: &Config,
    manifest: &Manifest,
    globals: Option<&Globals>,
    scratch: &Scratch,
) -> Result<DrillServer> {
    let configured = config.postgresql.as_ref();
    ensure_room(manifest, scratch)?;
    let version = manifest.version(POSTGRESQL).and_then(major);
    let programs = find_programs(
        configured.and_then(|postgresql| postgresql.bin_dir.as_deref()),
        version.unwrap_or(0),
    )?;
    let user = user::sandbox()?;
    let place = scratch.create_place_for("drill-postgresql", user.as_ref())?;
    ensure_short(&place.join(format!(".s.PGSQL.{PORT}")))?;
    let superuser = superuser(globals, configured);
    let mut server = initialize_and_start(&programs, &place, user.as_ref(), &superuser)?;
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
    Ok(DrillServer { config, place, user, _server: server })
}

/// Fails if the databases do not fit into the scratch directory.
fn ensure_room(manifest: &Manifest, scratch: &Scratch) -> Result<()> {
    let needed: u64 = manifest.databases.iter().map(|database| database.bytes).sum();
    let free = scratch.free()?;
    ensure!(
        free > needed,
        "{} are free, but the databases take {}: choose another directory with --scratch",
        BinaryBytes(free),
        BinaryBytes(needed)
    );
    Ok(())
}

/// Creates the cluster with initdb, and starts its server with a socket in `place`.
fn initialize_and_start(
    programs: &Path,
    place: &Path,
    user: Option<&User>,
    superuser: &str,
) -> Result<ScratchServer> {
    let data = place.join("data");
    notify::status("creating a server for the drill");
    let mut initdb = Launch { user, place, signal: Signal::KILL }.command(&programs.join("initdb"));
    initdb
        .args(["--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"])
        .arg(format!("--username={superuser}"));
    process::run(initdb.arg("--pgdata").arg(&data))
        .context("initdb cannot create a database cluster for the drill")?;
    let sockets =
        format!("unix_socket_directories=\"{}\"", place.display().to_string().replace('"', "\"\""));
    let mut arguments = vec!["-D".to_owned(), data.to_string_lossy().into_owned()];
    let settings =
        SETTINGS.iter().map(ToString::to_string).chain([sockets, format!("port={PORT}")]);
    arguments.extend(settings.flat_map(|setting| ["-c".to_owned(), setting]));
    // SIGQUIT is an immediate shutdown, which ends all processes of the server.
    let launch = Launch { user, place, signal: Signal::QUIT };
    ScratchServer::start(&launch, &programs.join("postgres"), &arguments)
}

/// Finds the directory with the programs of a server: the configured one, or that of the newest
/// server. Fails if there is none of `version` or newer.
fn find_programs(configured: Option<&Path>, version: u32) -> Result<PathBuf> {
    let major_in = |directory: &Path| {
        let is_complete = ["initdb", "postgres", "pg_restore"]
            .iter()
            .all(|name| process::find(name, [directory.to_owned()]).is_some());
        let output = is_complete
            .then(|| process::run(Command::new(directory.join("postgres")).arg("--version")).ok());
        output.flatten().and_then(|output| major(&output))
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
                "the run is of PostgreSQL {version}, and the newest server on this host is \
                 {major}: install the server of version {version}, which need not run"
            )
        }
        None => bail!(
            "there are no programs of a PostgreSQL server on this host (initdb, postgres): install \
             them, or name their directory in [postgresql] bin-dir"
        ),
    }
}

/// The name of the bootstrap superuser of the server that was backed up: only a role of this name
/// can repeat its grants.
fn superuser(globals: Option<&Globals>, configured: Option<&Postgresql>) -> String {
    let first = globals.and_then(|globals| globals.first.clone());
    first
        .or_else(|| configured.map(|postgresql| postgresql.restore_user.clone()))
        .unwrap_or_else(|| SUPERUSER.to_owned())
}

/// Creates the roles, and the tablespaces in new directories.
async fn create_globals(
    session: &Session,
    globals: &Globals,
    server: &DrillServer,
) -> Result<String> {
    let (created, failed) = globals.create_missing_roles(session).await?;
    failed.iter().for_each(|failure| tracing::warn!("{failure}"));
    for (number, tablespace) in globals.tablespaces.iter().enumerate() {
        let name = format!("tablespace{number}");
        let location = Directory::open(&server.place)?.make(OsStr::new(&name), 0o700)?;
        give(&location, server.user.as_ref())?;
        let directory = server.place.join(name);
        let sql = format!(
            "CREATE TABLESPACE {} LOCATION {}",
            identifier(&tablespace.name),
            literal(&directory.to_string_lossy())
        );
        session
            .run(&sql)
            .await
            .with_context(|| format!("cannot create tablespace {}", tablespace.name))?;
    }
    Ok(format!("{} restored, and {} tablespaces", created.len(), globals.tablespaces.len()))
}

/// Creates the roles that own an object in a dump. The runs of early versions have not recorded
/// their roles.
async fn create_owners(session: &Session, dumps: &[(String, PathBuf)]) -> Result<String> {
    let mut roles: BTreeSet<String> = BTreeSet::new();
    for (_, path) in dumps {
        roles.extend(toc::read(path)?.into_iter().filter_map(|entry| entry.owner));
    }
    let roles = roles
        .into_iter()
        .map(|name| Role { name, inherit: true, connection_limit: -1, ..Role::default() })
        .collect();
    let (created, _) =
        Globals { roles, ..Globals::default() }.create_missing_roles(session).await?;
    Ok(format!(
        "{} restored: only the owners, since an older gitlab-backup made this run",
        created.len()
    ))
}

/// Restores one database as `name`, and compares its rows with those in the manifest.
async fn restore_and_compare(
    loader: &Loader<'_>,
    name: &str,
    dump: &Path,
    recorded: Option<&Database>,
) -> Result<String> {
    let unknown = Database::default();
    let like = recorded.unwrap_or(&unknown);
    loader.create(name, like).await?;
    let mut result = Ok(String::new());
    let mut of_extensions = BTreeMap::new();
    // Count as the role that fills the database, before the objects are handed over: planning a
    // query evaluates the expressions of indexes.
    loader
        .fill(name, dump, &[], async |moment| {
            match moment {
                Moment::Extensions => {
                    count_extension_rows(loader, name, &mut of_extensions).await?
                }
                Moment::Filled => {
                    result = compare_rows(loader, name, recorded, &of_extensions).await
                }
            }
            Ok(())
        })
        .await?;
    result
}

/// Counts the rows that extensions have created, which are not in the dump. Adds them to `counted`
/// by table.
async fn count_extension_rows(
    loader: &Loader<'_>,
    name: &str,
    counted: &mut BTreeMap<String, u64>,
) -> Result<()> {
    let session = loader.sandbox.unwrap_or(loader.admin).connect(name).await?;
    for row in session.rows(OF_EXTENSIONS, &[]).await? {
        let (schema, table, quoted): (String, String, String) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        // Count a table only once: later it may have other rows, too.
        if let Entry::Vacant(entry) = counted.entry(quoted) {
            let rows = count_rows(&session, &schema, &table, entry.key()).await?;
            entry.insert(rows);
        }
    }
    Ok(())
}

/// Counts the rows of one table. `quoted` is its name for messages.
async fn count_rows(session: &Session, schema: &str, table: &str, quoted: &str) -> Result<u64> {
    // ONLY, because tables that inherit from this one are counted separately.
    let sql = format!(
        "SELECT pg_catalog.count(*) FROM ONLY {}.{}",
        identifier(schema),
        identifier(table)
    );
    let count: i64 = session
        .value(&sql, &[])
        .await
        .with_context(|| format!("cannot count the rows of table {quoted}"))?;
    u64::try_from(count).with_context(|| format!("table {quoted} has {count} rows"))
}

/// Compares the numbers of rows in a restored database with those in the manifest. `of_extensions`
/// has the rows that extensions have created.
async fn compare_rows(
    loader: &Loader<'_>,
    name: &str,
    recorded: Option<&Database>,
    of_extensions: &BTreeMap<String, u64>,
) -> Result<String> {
    let Some(recorded) = recorded else {
        return Ok(
            "restored; the rows are not compared, since the manifest has no numbers".to_owned()
        );
    };
    let session = loader.sandbox.unwrap_or(loader.admin).connect(name).await?;
    let mut existing = BTreeMap::new();
    for row in session.rows(TABLES, &[]).await? {
        let (schema, table, quoted): (String, String, String) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        existing.insert(quoted, (schema, table));
    }
    let mut different = Vec::new();
    for (table, rows) in &recorded.tables {
        let Some((schema, name)) = existing.get(table) else {
            different.push(format!("table {table} is missing, and the manifest says {rows} rows"));
            continue;
        };
        let count = count_rows(&session, schema, name, table).await?;
        // The manifest has the rows of the dump only.
        let of_extension = of_extensions.get(table).copied().unwrap_or(0);
        if count.checked_sub(of_extension) != Some(*rows) {
            let detail = if of_extension > 0 {
                format!(", of which {of_extension} come with its extension")
            } else {
                String::new()
            };
            different.push(format!(
                "table {table} has {count} rows{detail}, and the manifest says {rows}"
            ));
        }
    }
    let rest = different.len().saturating_sub(MAX_DIFFERENCES);
    let more = if rest > 0 { format!("; and {rest} more") } else { String::new() };
    let named = different.len().min(MAX_DIFFERENCES);
    ensure!(different.is_empty(), "{}{more}", different[..named].join("; "));
    let rows: u64 = recorded.tables.values().sum();
    Ok(format!("restored, {rows} rows in {} tables as in the manifest", recorded.tables.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bootstrap_superuser_has_the_recorded_name() {
        let globals = Globals { first: Some("gitlab-psql".to_owned()), ..Globals::default() };
        assert_eq!(superuser(Some(&globals), None), "gitlab-psql");
        assert_eq!(superuser(None, None), "postgres");
    }
}
