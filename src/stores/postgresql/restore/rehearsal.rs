//! Before GitLab is touched: that the programs, the role and the extensions that are here can make
//! what the run's databases consist of. It is made, without its data, in databases of their own,
//! which are dropped again.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::config::{Config, Postgresql};
use crate::host::beneath::Directory;
use crate::paths::{self, RootDirectory};
use crate::runs::Part;
use crate::runs::notes::note;
use crate::runs::restore::{Journal, StagedDatabase};
use crate::stores::postgresql::client::{Client, MAINTENANCE};
use crate::stores::postgresql::load::Loader;
use crate::stores::postgresql::sandbox;
use crate::stores::postgresql::session::Session;
use crate::stores::restoration::dump_directory;
use crate::systemd::notify;

use super::databases::{drop_ours, mark};
use super::dumps::{self, loads_as, recorded};
use super::staged::{give, options};

/// The databases of others among these: who is neither a superuser nor their owner cannot rename
/// them.
const OF_OTHERS: &str = "SELECT d.datname::text FROM pg_catalog.pg_database d \
    WHERE d.datname = ANY($1::text[]) AND NOT pg_catalog.pg_has_role(current_user, d.datdba, 'USAGE')";

/// What helps against most of what a server refuses.
const REMEDY: &str = "what it misses must be installed on the server or be granted to the role, or [postgresql] restore-user names one that may";

/// What a role that is no superuser, and loads as itself, has beyond what it takes.
const LENDS: &str = "SELECT word FROM pg_catalog.pg_roles r CROSS JOIN LATERAL (VALUES ('CREATEROLE', rolcreaterole), ('BYPASSRLS', rolbypassrls), \
        ('REPLICATION', rolreplication)) AS kind (word, has) WHERE r.rolname = current_user AND NOT r.rolsuper AND has \
    UNION ALL SELECT g.rolname::text FROM pg_catalog.pg_roles g JOIN pg_catalog.pg_roles r ON r.rolname = current_user AND NOT r.rolsuper \
        WHERE g.rolname ~ '^pg_' AND g.rolname NOT IN ('pg_database_owner', 'pg_read_all_data', 'pg_read_all_settings', 'pg_read_all_stats') \
        AND pg_catalog.pg_has_role(r.oid, g.oid, 'MEMBER')";

/// Does it for every database, and leaves nothing.
///
/// # Errors
/// With what PostgreSQL refuses.
pub(super) async fn rehearse(
    config: &Config,
    part: &Part,
    planned: &[StagedDatabase],
) -> Result<()> {
    let Some(postgresql) = config.postgresql.as_ref().filter(|_| !planned.is_empty()) else {
        return Ok(());
    };
    notify::status("rehearsing the load of the databases, without their data");
    let admin = Client::loading(postgresql)?;
    let session = admin.insist(MAINTENANCE).await?;
    let live: Vec<&str> = planned.iter().map(|database| database.database.name.as_str()).collect();
    let foreign: Vec<String> = session.column(OF_OTHERS, &[&live]).await?;
    ensure!(
        foreign.is_empty(),
        "role '{}' does not own database {foreign:?}, so it cannot replace it: {REMEDY}",
        admin.login.config.user
    );
    ensure!(
        session.value::<bool>("SELECT rolsuper OR rolcreatedb FROM pg_catalog.pg_roles WHERE rolname = current_user", &[]).await?,
        "role '{}' may not make databases (CREATEDB): {REMEDY}",
        admin.login.config.user
    );
    let lends: Vec<String> = session.column(LENDS, &[]).await?;
    if !lends.is_empty() {
        note(format!(
            "role '{}' is no superuser and loads as itself, so code of the databases has its rights ({}): name one in [postgresql] restore-user that \
             has CREATEDB and is a member of the databases' owners, and nothing more",
            admin.login.config.user,
            lends.join(", ")
        ))?;
    }
    let result = laid_out(config, postgresql, part, planned, (&admin, &session)).await;
    let cleared = clear(planned, &session).await.context("cannot remove what was rehearsed with");
    result.and(cleared)
}

async fn laid_out(
    config: &Config,
    postgresql: &Postgresql,
    part: &Part,
    planned: &[StagedDatabase],
    (admin, session): (&Client, &Session),
) -> Result<()> {
    let directory = part.paths.first().context("the part has no path")?;
    let mut wanted = vec![directory.join("postgresql.json")];
    for database in planned {
        wanted.push(database.database.dump_in(directory)?.join("toc.dat"));
    }
    dumps::extract(config, part, &wanted)?;
    let told = recorded(part)?;
    let is_needed = sandbox::is_needed(session).await?;
    // What is made belongs to them, unless it is the sandbox's.
    if let Some(globals) = told.globals.as_ref().filter(|_| !is_needed) {
        globals.make_roles(session).await.context(REMEDY)?;
    }
    let options = options(&told, session).await?;
    let dumps = dump_directory(part)?;
    let account = loads_as(postgresql);
    for database in planned {
        let sandbox = match is_needed {
            true => Some(sandbox::make(admin, session, account).await?),
            false => None,
        };
        let loader = Loader { admin, session, sandbox: sandbox.as_ref() };
        let name = rehearsed(database);
        let like = &database.database;
        drop_ours(session, &name).await?;
        let dump = like.dump_in(&dumps)?;
        give(&dump, &loader)?;
        let work = async {
            loader.create(&name, like).await?;
            mark(session, &name).await?;
            loader.rehearse(&name, &dump, options).await
        };
        work.await.with_context(|| {
            format!("database '{}' of this run cannot be made here: {REMEDY}", like.name)
        })?;
    }
    Ok(())
}

/// Removes the databases, what lies on the disk, and the role unless an unfinished restore has left
/// it.
async fn clear(planned: &[StagedDatabase], session: &Session) -> Result<()> {
    for database in planned {
        drop_ours(session, &rehearsed(database)).await?;
    }
    let (above, name) = Directory::of(Path::new(paths::RESTORE_DUMPS))?;
    if above.look(Path::new(&name))?.is_some() {
        above.remove(&name)?;
    }
    match (sandbox::is_needed(session).await?, Journal::load(&RootDirectory::host())?) {
        (false, _) => Ok(()),
        (true, None) => sandbox::retire(session).await,
        (true, Some(_)) => sandbox::silence(session).await,
    }
}

/// Another name than that of what an unfinished restore may have laid out.
fn rehearsed(database: &StagedDatabase) -> String {
    format!("{}_rehearsed", database.staged)
}
