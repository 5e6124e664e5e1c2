//! Loads every database of the run into a new database beside the old one.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use indicatif::BinaryBytes;
use tokio::time::interval;

use crate::config::Config;
use crate::host::beneath::Directory;
use crate::host::process;
use crate::paths::RootDirectory;
use crate::runs::Database;
use crate::runs::restore::StagedDatabase;
use crate::stores::postgresql::client::{Client, MAINTENANCE};
use crate::stores::postgresql::load::{self, Loader, Moment};
use crate::stores::postgresql::session::Session;
use crate::stores::postgresql::{Dumped, sandbox};
use crate::stores::restoration::{dump_directory, plan};
use crate::systemd::notify;

use super::databases::mark;
use super::dumps::{loading_user, read_record};

/// Between two updates of the progress.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// Creates the missing roles, and loads each database under its temporary name.
pub async fn load(config: &Config, root: &RootDirectory) -> Result<()> {
    let plan = plan(root)?;
    let (Some(part), Some(postgresql)) = (&plan.postgresql, &config.postgresql) else {
        return Ok(());
    };
    let admin = Client::loading(postgresql)?;
    let session = admin.connect_ending_blockers(MAINTENANCE).await?;
    let dumps = dump_directory(root, part)?;
    let record = read_record(root, part)?;
    if let Some(globals) = &record.globals {
        let (created, failed) = globals.create_missing_roles(&session).await?;
        created.iter().for_each(|role| tracing::info!(role, "created a missing role"));
        failed.iter().for_each(|failure| tracing::warn!("{failure}"));
    }
    let options = pg_restore_options(&record, &session).await?;
    let is_needed = sandbox::is_needed(&session).await?;
    for (index, database) in plan.databases.iter().enumerate() {
        // Create the role anew for each database: code of one database could have granted the role
        // to others, who could use it while the next database is loaded.
        let sandbox = match is_needed {
            true => Some(sandbox::create(&admin, &session, loading_user(postgresql)).await?),
            false => None,
        };
        let loader = Loader { admin: &admin, session: &session, sandbox: sandbox.as_ref() };
        let recorded = record
            .databases
            .iter()
            .find(|recorded| recorded.name == database.database.name)
            .unwrap_or(&database.database);
        let path = database.database.dump_in(&dumps)?;
        give_access(&path, &loader)?;
        let which = format!("database {} of {}", index + 1, plan.databases.len());
        let loading = load_database(&loader, database, recorded, &path, options);
        with_progress(loading, &session, database, &which).await?;
        if sandbox.is_some() {
            sandbox::drop_role(&session).await?;
        }
    }
    Ok(())
}

/// Waits for the load of a database, and shows the progress in the unit's status.
async fn with_progress(
    loading: impl Future<Output = Result<()>>,
    session: &Session,
    database: &StagedDatabase,
    which: &str,
) -> Result<()> {
    let (name, total) = (&database.database.name, BinaryBytes(database.database.bytes));
    let mut tick = interval(PROGRESS_INTERVAL);
    tokio::pin!(loading);
    loop {
        tokio::select! {
            result = &mut loading => return result,
            _ = tick.tick() => {
                let now = BinaryBytes(size(session, &database.staged).await);
                notify::status(&format!("loading {name} ({which}): {now} of {total}"));
            }
        }
    }
}

/// Additional options of pg_restore.
pub(super) async fn pg_restore_options(
    record: &Dumped,
    session: &Session,
) -> Result<&'static [&'static str]> {
    let Some(globals) = &record.globals else { return Ok(&[]) };
    // If one tablespace is missing, use none: pg_restore cannot ignore single tablespaces.
    Ok(if globals.missing_tablespaces(session).await?.is_empty() {
        &[]
    } else {
        &["--no-tablespaces"]
    })
}

/// Lets the account that runs pg_restore read a dump.
pub(super) fn give_access(dump: &Path, loader: &Loader<'_>) -> Result<()> {
    match loader.sandbox.unwrap_or(loader.admin).login.account {
        // Root stays the owner, because a superuser runs statements from the table of contents.
        Some(account) => Directory::open(dump)?.lend(Some(account.gid)).map(drop),
        None => Ok(()),
    }
}

/// Creates the staged database and loads its dump. `recorded` has the values of the sequences.
async fn load_database(
    loader: &Loader<'_>,
    database: &StagedDatabase,
    recorded: &Database,
    dump: &Path,
    options: &[&str],
) -> Result<()> {
    let name = &database.staged;
    loader.create(name, &database.database).await?;
    mark(loader.session, name).await?;
    // ANALYZE evaluates the expressions of indexes, so it runs before the role without rights hands
    // the objects over.
    let at_moment = async |moment| {
        if moment == Moment::Filled {
            analyze(loader, name).await?;
        }
        Ok(())
    };
    loader.fill(name, dump, options, at_moment).await?;
    // No code of the database runs any more.
    load::set_sequences(&loader.admin.connect(name).await?, recorded).await
}

/// Runs ANALYZE on a database, as the role that fills it. Only warns if that fails: the data is
/// complete without it, and autovacuum repeats it later.
async fn analyze(loader: &Loader<'_>, name: &str) -> Result<()> {
    let filler = loader.sandbox.unwrap_or(loader.admin);
    let mut command = filler.command("vacuumdb", name, loader.session.major)?;
    command.args(["--analyze-only", "--quiet"]).arg(format!("--jobs={}", filler.login.config.jobs));
    let failure = match process::to_its_end(&mut command).await {
        Ok(ended) if ended.status.success() => return Ok(()),
        Ok(ended) => process::tail(ended.said.as_bytes()),
        Err(error) => format!("{error:#}"),
    };
    tracing::warn!(
        "{} is slow until it is analyzed ('vacuumdb --analyze-only'), which failed: {failure}",
        filler.login.describe(name)
    );
    Ok(())
}

/// Returns the current size of a database in bytes.
async fn size(session: &Session, name: &str) -> u64 {
    let sql = "SELECT pg_catalog.pg_database_size(oid) FROM pg_catalog.pg_database WHERE datname = \
               $1::text";
    let rows: Vec<i64> = session.column(sql, &[&name]).await.unwrap_or_default();
    rows.first().and_then(|bytes| u64::try_from(*bytes).ok()).unwrap_or(0)
}
