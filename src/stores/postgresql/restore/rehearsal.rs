//! Rehearses the load of the databases before GitLab is stopped: creates their objects without the
//! data, in temporary databases that are dropped again. This shows whether the installed programs
//! and extensions and the role can restore them.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::config::{Config, Postgresql};
use crate::host::beneath::Directory;
use crate::paths::{self, RootDirectory};
use crate::runs::Part;
use crate::runs::notes::note;
use crate::runs::restore::{RestoreJournal, StagedDatabase};
use crate::stores::postgresql::client::{Client, MAINTENANCE};
use crate::stores::postgresql::load::Loader;
use crate::stores::postgresql::sandbox;
use crate::stores::postgresql::session::Session;
use crate::stores::restoration::dump_directory;
use crate::systemd::notify;

use super::databases::{drop_marked, mark};
use super::dumps::{self, loading_user, read_record};
use super::staged::{give_access, pg_restore_options};

/// Which of these databases the role does not own: a role that is not a superuser can only rename
/// its own databases.
const OF_OTHERS: &str = "SELECT d.datname::text FROM pg_catalog.pg_database d \
    WHERE d.datname = ANY($1::text[]) AND NOT pg_catalog.pg_has_role(current_user, d.datdba, \
    'USAGE')";

/// The remedy for most errors of the server.
const REMEDY: &str = "install missing extensions on the server, grant missing rights to the role, \
                      or name a role that has them in [postgresql] restore-user";

/// The rights of the role that loading does not need. Code of the databases gets them, if the role
/// is not a superuser and so loads the dumps itself.
const EXCESS_RIGHTS: &str = "SELECT word FROM pg_catalog.pg_roles r CROSS JOIN LATERAL (VALUES \
                             ('CREATEROLE', rolcreaterole), ('BYPASSRLS', rolbypassrls), \
        ('REPLICATION', rolreplication)) AS kind (word, has) WHERE r.rolname = current_user AND \
        NOT r.rolsuper AND has \
    UNION ALL SELECT g.rolname::text FROM pg_catalog.pg_roles g JOIN pg_catalog.pg_roles r ON \
    r.rolname = current_user AND NOT r.rolsuper \
        WHERE g.rolname ~ '^pg_' AND g.rolname NOT IN ('pg_database_owner', 'pg_read_all_data', \
        'pg_read_all_settings', 'pg_read_all_stats') \
        AND pg_catalog.pg_has_role(r.oid, g.oid, 'MEMBER')";

/// Rehearses the load of every database, and removes everything that it created.
///
/// # Errors
/// If the server refuses a statement. The error quotes the server's message.
pub(super) async fn rehearse(
    config: &Config,
    root: &RootDirectory,
    part: &Part,
    planned: &[StagedDatabase],
) -> Result<()> {
    let Some(postgresql) = config.postgresql.as_ref().filter(|_| !planned.is_empty()) else {
        return Ok(());
    };
    notify::status("rehearsing the load of the databases, without their data");
    let admin = Client::loading(postgresql)?;
    let session = admin.connect_ending_blockers(MAINTENANCE).await?;
    check_role(&admin, &session, planned, root).await?;
    let result = create_all(config, root, postgresql, part, planned, (&admin, &session)).await;
    let cleared =
        clear(planned, &session, root).await.context("cannot clean up after the rehearsal");
    result.and(cleared)
}

/// Fails if the role cannot create databases, or cannot replace one of the planned ones. Notes
/// rights that it should not have.
async fn check_role(
    admin: &Client,
    session: &Session,
    planned: &[StagedDatabase],
    root: &RootDirectory,
) -> Result<()> {
    let live: Vec<&str> = planned.iter().map(|database| database.database.name.as_str()).collect();
    let foreign: Vec<String> = session.column(OF_OTHERS, &[&live]).await?;
    ensure!(
        foreign.is_empty(),
        "role '{}' does not own database {foreign:?}, so it cannot replace it: {REMEDY}",
        admin.login.config.user
    );
    ensure!(
        session
            .value::<bool>(
                "SELECT rolsuper OR rolcreatedb FROM pg_catalog.pg_roles WHERE \
                               rolname = current_user",
                &[]
            )
            .await?,
        "role '{}' may not create databases (CREATEDB): {REMEDY}",
        admin.login.config.user
    );
    let excess: Vec<String> = session.column(EXCESS_RIGHTS, &[]).await?;
    if !excess.is_empty() {
        let words = format!(
            "role '{}' is not a superuser and loads the dumps itself, so code of the databases has \
             its rights ({}): name a role in [postgresql] restore-user \
             that has CREATEDB and is a member of the databases' owners, and nothing more",
            admin.login.config.user,
            excess.join(", ")
        );
        note(root, words)?;
    }
    Ok(())
}

/// Creates a temporary database for each planned one, with its objects but without the data.
async fn create_all(
    config: &Config,
    root: &RootDirectory,
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
    dumps::extract(config, root, part, &wanted)?;
    let record = read_record(root, part)?;
    let is_needed = sandbox::is_needed(session).await?;
    // Without the sandbox, pg_restore gives the objects to their owners, which must exist.
    if let Some(globals) = record.globals.as_ref().filter(|_| !is_needed) {
        globals.create_missing_roles(session).await.context(REMEDY)?;
    }
    let options = pg_restore_options(&record, session).await?;
    let dumps = dump_directory(root, part)?;
    let account = loading_user(postgresql);
    for database in planned {
        let sandbox = match is_needed {
            true => Some(sandbox::create(admin, session, account).await?),
            false => None,
        };
        let loader = Loader { admin, session, sandbox: sandbox.as_ref() };
        let name = rehearsal_name(database);
        let like = &database.database;
        drop_marked(session, &name).await?;
        let dump = like.dump_in(&dumps)?;
        give_access(&dump, &loader)?;
        let work = async {
            loader.create(&name, like).await?;
            mark(session, &name).await?;
            loader.rehearse(&name, &dump, options).await
        };
        work.await.with_context(|| {
            format!("database '{}' of this run cannot be created here: {REMEDY}", like.name)
        })?;
    }
    Ok(())
}

/// Removes the temporary databases, the extracted dumps, and the role, if no unfinished restore
/// needs the role.
async fn clear(planned: &[StagedDatabase], session: &Session, root: &RootDirectory) -> Result<()> {
    for database in planned {
        drop_marked(session, &rehearsal_name(database)).await?;
    }
    let (above, name) = Directory::of(&root.at(paths::RESTORE_DUMPS))?;
    if above.look(Path::new(&name))?.is_some() {
        above.remove(&name)?;
    }
    match (sandbox::is_needed(session).await?, RestoreJournal::load(root)?) {
        (false, _) => Ok(()),
        (true, None) => sandbox::drop_role(session).await,
        (true, Some(_)) => sandbox::lock_out(session).await,
    }
}

/// The name of a temporary database. It is not the name of a staged one, which an unfinished
/// restore may have created.
fn rehearsal_name(database: &StagedDatabase) -> String {
    format!("{}_rehearsed", database.staged)
}
