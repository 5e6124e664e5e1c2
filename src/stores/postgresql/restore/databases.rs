//! Lists, marks and drops databases of the server, and ends sessions in them.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use tokio::time::sleep;

use crate::accounts;
use crate::stores::postgresql::client::{LOADING_APPLICATION, RESTORE_MARK};
use crate::stores::postgresql::quoting::{identifier, literal};
use crate::stores::postgresql::session::Session;

/// For how long to end sessions that connect again and again to a database, or do not end because
/// they are busy. After that the restore fails and names the sessions.
pub(super) const TIMEOUT: Duration = Duration::from_secs(30);
/// How often to check whether the sessions of a killed restore have ended.
const END_TRIES: u32 = 600;
pub(super) const PAUSE: Duration = Duration::from_millis(100);

/// The prepared transactions in a database, or with a lock on it. They keep the database from
/// being renamed or dropped, and do not end with a session.
const PREPARED: &str = "SELECT 'prepared transaction ' || x.gid FROM pg_catalog.pg_prepared_xacts \
                        x WHERE x.database = $1::text \
    OR EXISTS (SELECT FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_database d ON d.oid = l.objid \
    WHERE d.datname = $1::text \
      AND l.classid = 'pg_catalog.pg_database'::pg_catalog.regclass AND l.virtualtransaction = \
      '-1/' || x.transaction::text)";

/// Fails if a prepared transaction holds one of these databases.
pub(super) async fn ensure_no_prepared(
    session: &Session,
    names: impl Iterator<Item = &String>,
) -> Result<()> {
    for name in names {
        let prepared: Vec<String> = session.column(PREPARED, &[name]).await?;
        ensure!(
            prepared.is_empty(),
            "database '{name}' is held by {}, so it cannot be renamed: COMMIT PREPARED or ROLLBACK \
             PREPARED in it",
            prepared.join(", ")
        );
    }
    Ok(())
}

/// Returns the OID of every database, by name.
pub(super) async fn oids(session: &Session) -> Result<HashMap<String, u32>> {
    let rows = session.rows("SELECT datname::text, oid FROM pg_catalog.pg_database", &[]).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// Lists the databases that have the comment of [`mark`].
pub(super) async fn list_marked(session: &Session) -> Result<Vec<String>> {
    let sql = "SELECT datname::text FROM pg_catalog.pg_database WHERE \
               pg_catalog.shobj_description(oid, 'pg_database') = $1::text";
    session.column(sql, &[&RESTORE_MARK]).await
}

/// Marks a database as one of a restore, by a comment.
pub(super) async fn mark(session: &Session, name: &str) -> Result<()> {
    session
        .run(&format!("COMMENT ON DATABASE {} IS {}", identifier(name), literal(RESTORE_MARK)))
        .await
}

/// Drops a database, if it is marked as one of a restore. Ends the sessions in it.
pub(super) async fn drop_marked(session: &Session, name: &str) -> Result<()> {
    if list_marked(session).await?.iter().any(|marked| marked == name) {
        drop_database(session, name, None).await
    } else {
        Ok(())
    }
}

/// Drops a database, if it exists. Ends the sessions in it.
///
/// # Errors
/// If the database does not have the OID `number`, or cannot be dropped. The error names what holds
/// the database.
pub(super) async fn drop_database(
    session: &Session,
    name: &str,
    number: Option<u32>,
) -> Result<()> {
    let until = Instant::now() + TIMEOUT;
    loop {
        let Some(oid) = oids(session).await?.get(name).copied() else { return Ok(()) };
        ensure!(
            number.is_none_or(|number| number == oid),
            "database '{name}' is not the one of the restore, but another of the same name: not \
             dropped"
        );
        // A template cannot be dropped.
        if is_template(session, name).await? {
            session.run(&format!("ALTER DATABASE {} IS_TEMPLATE false", identifier(name))).await?;
        }
        let force = if session.major >= 13 { " WITH (FORCE)" } else { "" };
        if force.is_empty() {
            end_sessions(session, &[name]).await?;
        }
        match session
            .run_with_barrier(&format!("DROP DATABASE IF EXISTS {}{force}", identifier(name)))
            .await
        {
            Ok(()) => return Ok(()),
            Err(error) => {
                let holders = holders(session, name).await;
                let only_sessions = holders.iter().all(|holder| holder.starts_with("session"));
                if Instant::now() >= until || !only_sessions {
                    return Err(error.context(match holders.is_empty() {
                        true => format!("cannot drop database '{name}'"),
                        false => {
                            format!("cannot drop database '{name}', held by {}", holders.join(", "))
                        }
                    }));
                }
            }
        }
        sleep(PAUSE).await;
    }
}

async fn is_template(session: &Session, name: &str) -> Result<bool> {
    let sql = "SELECT EXISTS (SELECT FROM pg_catalog.pg_database WHERE datname = $1::text AND \
               datistemplate)";
    session.value(sql, &[&name]).await
}

/// Lists what keeps a database from being dropped or renamed, as far as the role may see it.
pub(super) async fn holders(session: &Session, name: &str) -> Vec<String> {
    let queries = [
        "SELECT 'subscription ' || s.subname FROM pg_catalog.pg_subscription s JOIN \
         pg_catalog.pg_database d ON d.oid = s.subdbid \
         WHERE d.datname = $1::text",
        PREPARED,
        "SELECT 'replication slot ' || slot_name FROM pg_catalog.pg_replication_slots WHERE \
         database = $1::text",
        "SELECT 'session ' || l.pid || ' of ' || coalesce(a.usename, '?') || ' (a lock, from ' || \
         coalesce(a.datname, '?') || ')' \
         FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_database d ON d.oid = l.objid LEFT JOIN \
         pg_catalog.pg_stat_activity a ON a.pid = l.pid \
         WHERE d.datname = $1::text AND l.locktype = 'object' AND l.classid = \
         'pg_catalog.pg_database'::pg_catalog.regclass AND l.granted \
           AND l.pid <> pg_catalog.pg_backend_pid()",
        "SELECT 'session ' || pid || ' of ' || coalesce(usename, '?') || ' (' || \
         coalesce(application_name, '') || ')' \
         FROM pg_catalog.pg_stat_activity WHERE datname = $1::text AND pid <> \
         pg_catalog.pg_backend_pid()",
    ];
    let mut found = Vec::new();
    for sql in queries {
        match session.column::<String>(sql, &[&name]).await {
            Ok(some) => found.extend(some),
            Err(error) => tracing::debug!("{error:#}"),
        }
    }
    found
}

/// Ends the sessions of a killed restore, and waits until they are gone.
pub(super) async fn end_sessions_of_restores(session: &Session) -> Result<()> {
    let sql = "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity \
        WHERE application_name = $1::text AND pid <> pg_catalog.pg_backend_pid() AND usename IN \
        (current_user, $2::text)";
    // The roles are checked too, because every session can use this application name.
    for _ in 0..END_TRIES {
        if session.rows(sql, &[&LOADING_APPLICATION, &accounts::LOADER]).await?.is_empty() {
            return Ok(());
        }
        sleep(PAUSE).await;
    }
    bail!("a session of '{LOADING_APPLICATION}' does not end: look at pg_stat_activity")
}

/// Ends all other sessions in these databases.
pub(super) async fn end_sessions(session: &Session, names: &[&str]) -> Result<()> {
    let sql = "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity \
        WHERE datname = ANY($1::text[]) AND pid <> pg_catalog.pg_backend_pid()";
    session.rows(sql, &[&names]).await.map(|_| ())
}
