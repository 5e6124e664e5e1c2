//! The server's databases, as a restore needs to know, mark and drop them.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use tokio::time::sleep;

use crate::accounts;
use crate::stores::postgresql::client::{LOADING, OURS};
use crate::stores::postgresql::quoting::{identifier, literal};
use crate::stores::postgresql::session::Session;

/// How long the sessions of others are ended when they come back into a database. A session that
/// computes may ignore that for as long as it likes: then the restore fails and names it.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// How often a session of a killed restore is asked whether it has ended.
const ENDS: u32 = 600;
pub(super) const PAUSE: Duration = Duration::from_millis(100);

/// Prepared transactions, in a database or elsewhere with a lock on it: they keep it from being
/// renamed and dropped, and ending a session does not end them.
const PREPARED: &str = "SELECT 'prepared transaction ' || x.gid FROM pg_catalog.pg_prepared_xacts x WHERE x.database = $1::text \
    OR EXISTS (SELECT FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_database d ON d.oid = l.objid WHERE d.datname = $1::text \
      AND l.classid = 'pg_catalog.pg_database'::pg_catalog.regclass AND l.virtualtransaction = '-1/' || x.transaction::text)";

/// Fails if a transaction is prepared in one of these databases.
pub(super) async fn unprepared(
    session: &Session,
    names: impl Iterator<Item = &String>,
) -> Result<()> {
    for name in names {
        let prepared: Vec<String> = session.column(PREPARED, &[name]).await?;
        ensure!(
            prepared.is_empty(),
            "database '{name}' is held by {}, so it cannot be renamed: COMMIT PREPARED or ROLLBACK PREPARED in it",
            prepared.join(", ")
        );
    }
    Ok(())
}

/// The name of every database, and the server's own number (OID) of it.
pub(super) async fn numbers(session: &Session) -> Result<HashMap<String, u32>> {
    let rows = session.rows("SELECT datname::text, oid FROM pg_catalog.pg_database", &[]).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// The databases that a restore has created, by their comment.
pub(super) async fn marked(session: &Session) -> Result<Vec<String>> {
    let sql = "SELECT datname::text FROM pg_catalog.pg_database WHERE pg_catalog.shobj_description(oid, 'pg_database') = $1::text";
    session.column(sql, &[&OURS]).await
}

/// Marks a database as created by a restore.
pub(super) async fn mark(session: &Session, name: &str) -> Result<()> {
    session.run(&format!("COMMENT ON DATABASE {} IS {}", identifier(name), literal(OURS))).await
}

/// Drops the database of this name, with all sessions in it, if a restore has created it.
pub(super) async fn drop_ours(session: &Session, name: &str) -> Result<()> {
    if marked(session).await?.iter().any(|marked| marked == name) {
        drop_one(session, name, None).await
    } else {
        Ok(())
    }
}

/// Drops a database, with all sessions in it, if it has this number. One that does not exist is no
/// error.
pub(super) async fn drop_one(session: &Session, name: &str, number: Option<u32>) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    loop {
        let Some(found) = numbers(session).await?.get(name).copied() else { return Ok(()) };
        ensure!(
            number.is_none_or(|number| number == found),
            "database '{name}' is another than the one that was ours: it stays"
        );
        if session
            .value::<bool>("SELECT EXISTS (SELECT FROM pg_catalog.pg_database WHERE datname = $1::text AND datistemplate)", &[&name])
            .await?
        {
            session.run(&format!("ALTER DATABASE {} IS_TEMPLATE false", identifier(name))).await?;
        }
        let force = if session.major >= 13 { " WITH (FORCE)" } else { "" };
        if force.is_empty() {
            end(session, &[name]).await?;
        }
        match session
            .run_with_all(&format!("DROP DATABASE IF EXISTS {}{force}", identifier(name)))
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

/// What keeps a database from being dropped or renamed, as far as the role may see it.
pub(super) async fn holders(session: &Session, name: &str) -> Vec<String> {
    let queries = [
        "SELECT 'subscription ' || s.subname FROM pg_catalog.pg_subscription s JOIN pg_catalog.pg_database d ON d.oid = s.subdbid \
         WHERE d.datname = $1::text",
        PREPARED,
        "SELECT 'replication slot ' || slot_name FROM pg_catalog.pg_replication_slots WHERE database = $1::text",
        "SELECT 'session ' || l.pid || ' of ' || coalesce(a.usename, '?') || ' (a lock, from ' || coalesce(a.datname, '?') || ')' \
         FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_database d ON d.oid = l.objid LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid \
         WHERE d.datname = $1::text AND l.locktype = 'object' AND l.classid = 'pg_catalog.pg_database'::pg_catalog.regclass AND l.granted \
           AND l.pid <> pg_catalog.pg_backend_pid()",
        "SELECT 'session ' || pid || ' of ' || coalesce(usename, '?') || ' (' || coalesce(application_name, '') || ')' \
         FROM pg_catalog.pg_stat_activity WHERE datname = $1::text AND pid <> pg_catalog.pg_backend_pid()",
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

/// Ends the sessions of a restore that was killed, and waits until they are gone.
pub(super) async fn end_ours(session: &Session) -> Result<()> {
    let sql = "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity \
        WHERE application_name = $1::text AND pid <> pg_catalog.pg_backend_pid() AND usename IN (current_user, $2::text)";
    for _ in 0..ENDS {
        // Anybody may call himself so.
        if session.rows(sql, &[&LOADING, &accounts::LOADER]).await?.is_empty() {
            return Ok(());
        }
        sleep(PAUSE).await;
    }
    bail!("a session of '{LOADING}' does not end: look at pg_stat_activity")
}

/// Ends all other sessions in these databases.
pub(super) async fn end(session: &Session, names: &[&str]) -> Result<()> {
    let sql = "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity \
        WHERE datname = ANY($1::text[]) AND pid <> pg_catalog.pg_backend_pid()";
    session.rows(sql, &[&names]).await.map(|_| ())
}
