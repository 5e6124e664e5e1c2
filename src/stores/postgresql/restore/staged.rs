//! Every database of the run, loaded into a new one beside the old.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use indicatif::BinaryBytes;
use tokio::time::interval;

use crate::config::Config;
use crate::host::beneath::Directory;
use crate::host::process;
use crate::runs::Database;
use crate::runs::restore::StagedDatabase;
use crate::stores::postgresql::client::{Client, MAINTENANCE};
use crate::stores::postgresql::load::{self, Loader, Moment};
use crate::stores::postgresql::session::Session;
use crate::stores::postgresql::{Dumped, sandbox};
use crate::stores::restoration::{dump_directory, plan};
use crate::systemd::notify;

use super::databases::mark;
use super::dumps::{loads_as, recorded};

/// Between two looks at how far it is.
const LOOK: Duration = Duration::from_secs(1);

/// Makes the roles that are missing, and each database under the name that it has until everything
/// is there.
pub async fn load(config: &Config) -> Result<()> {
    let plan = plan()?;
    let (Some(part), Some(postgresql)) = (&plan.postgresql, &config.postgresql) else {
        return Ok(());
    };
    let admin = Client::loading(postgresql)?;
    let session = admin.insist(MAINTENANCE).await?;
    let dumps = dump_directory(part)?;
    let told = recorded(part)?;
    if let Some(globals) = &told.globals {
        let (made, failed) = globals.make_roles(&session).await?;
        made.iter().for_each(|role| tracing::info!(role, "made a role that was not there"));
        failed.iter().for_each(|failure| tracing::warn!("{failure}"));
    }
    let options = options(&told, &session).await?;
    let is_needed = sandbox::is_needed(&session).await?;
    for (index, database) in plan.databases.iter().enumerate() {
        // A new one for each: the code of one database could have lent the role to whom it liked,
        // for the next.
        let sandbox = match is_needed {
            true => Some(sandbox::make(&admin, &session, loads_as(postgresql)).await?),
            false => None,
        };
        let loader = Loader { admin: &admin, session: &session, sandbox: sandbox.as_ref() };
        let told = told
            .databases
            .iter()
            .find(|told| told.name == database.database.name)
            .unwrap_or(&database.database);
        let path = database.database.dump_in(&dumps)?;
        give(&path, &loader)?;
        let work = one(&loader, database, told, &path, options);
        tokio::pin!(work);
        let mut tick = interval(LOOK);
        loop {
            tokio::select! {
                done = &mut work => break done?,
                _ = tick.tick() => {
                    let now = size(&session, &database.staged).await;
                    let (name, whole) = (&database.database.name, BinaryBytes(database.database.bytes));
                    let which = format!("database {} of {}", index + 1, plan.databases.len());
                    notify::status(&format!("loading {name} ({which}): {} of {whole}", BinaryBytes(now)));
                }
            }
        }
        if sandbox.is_some() {
            sandbox::retire(&session).await?;
        }
    }
    Ok(())
}

/// What pg_restore is told besides.
pub(super) async fn options(told: &Dumped, session: &Session) -> Result<&'static [&'static str]> {
    let Some(globals) = &told.globals else { return Ok(&[]) };
    // All or none: pg_restore cannot leave out some.
    Ok(if globals.missing_tablespaces(session).await?.is_empty() {
        &[]
    } else {
        &["--no-tablespaces"]
    })
}

/// Lets whoever runs pg_restore read a dump.
pub(super) fn give(dump: &Path, loader: &Loader<'_>) -> Result<()> {
    match loader.sandbox.unwrap_or(loader.admin).login.account {
        // It stays root's: what the list of contents says is made by a superuser.
        Some(account) => Directory::open(dump)?.lend(Some(account.gid)).map(drop),
        None => Ok(()),
    }
}

async fn one(
    loader: &Loader<'_>,
    database: &StagedDatabase,
    told: &Database,
    dump: &Path,
    options: &[&str],
) -> Result<()> {
    let name = &database.staged;
    loader.create(name, &database.database).await?;
    mark(loader.session, name).await?;
    // Whose indexes have expressions is still who has no rights.
    let filler = loader.sandbox.unwrap_or(loader.admin);
    let meanwhile = async |moment| {
        if moment != Moment::Filled {
            return Ok(());
        }
        let mut analyze = filler.command("vacuumdb", name, loader.session.major)?;
        analyze
            .args(["--analyze-only", "--quiet"])
            .arg(format!("--jobs={}", filler.login.config.jobs));
        // Everything is there without it, and the server does it by itself after a while.
        let failed = match process::to_its_end(&mut analyze).await {
            Ok(ended) if ended.status.success() => return Ok(()),
            Ok(ended) => process::tail(ended.said.as_bytes()),
            Err(error) => format!("{error:#}"),
        };
        tracing::warn!(
            "{} is slow until it is analyzed ('vacuumdb --analyze-only'), which failed: {failed}",
            filler.login.place(name)
        );
        Ok(())
    };
    loader.fill(name, dump, options, meanwhile).await?;
    // When no code of the database runs any more.
    load::sequences(&loader.admin.connect(name).await?, told).await
}

/// Bytes that a database takes so far.
async fn size(session: &Session, name: &str) -> u64 {
    let sql = "SELECT pg_catalog.pg_database_size(oid) FROM pg_catalog.pg_database WHERE datname = $1::text";
    let rows: Vec<i64> = session.column(sql, &[&name]).await.unwrap_or_default();
    rows.first().and_then(|bytes| u64::try_from(*bytes).ok()).unwrap_or(0)
}
