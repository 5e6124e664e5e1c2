//! A role of our own for backups, which may read everything and nothing else: the server's
//! superuser need not be asked every night.

use anyhow::{Context, Result, ensure};

use crate::config::Postgresql;
use crate::finding::Finding;

use super::client::MAINTENANCE;
use super::client::{Client, NOT_EMPTY};
use super::quoting::identifier;
use super::session::Session;

/// Its name; `install` makes an OS user of the same name for it.
pub const ROLE: &str = "gitlab-backup";
/// pg_read_all_data came with it.
const SINCE: u32 = 14;

/// Large objects belong to their owners whatever else a role may read, unless the server is told to
/// ask nobody: the last of these.
const STATEMENTS: [&str; 3] = [
    "ALTER ROLE \"gitlab-backup\" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION BYPASSRLS INHERIT",
    "GRANT pg_read_all_data, pg_read_all_settings, pg_read_all_stats TO \"gitlab-backup\"",
    "ALTER ROLE \"gitlab-backup\" SET lo_compat_privileges = on",
];

/// Makes the role, by the role that `config` restores with, which is a superuser. Returns the
/// statements that ran; a second time they change nothing.
///
/// # Errors
/// If the server is older than PostgreSQL 14, is not reached by a socket, or refuses.
pub async fn make(config: &Postgresql) -> Result<Vec<String>> {
    ensure!(
        config.by_socket(),
        "a role is made by a socket only: {} is a host, make one there by hand (README, 'A role of its own')",
        config.host
    );
    let admin = Client::restoring(config)?;
    let session = admin.connect(MAINTENANCE).await?;
    ensure!(
        session.major >= SINCE,
        "PostgreSQL {} has no role that may read everything: it is backed up by its superuser",
        session.major
    );
    let there: bool = session
        .value("SELECT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = $1::text)", &[&ROLE])
        .await?;
    let mut statements: Vec<String> = Vec::new();
    if !there {
        statements.push(format!("CREATE ROLE {}", identifier(ROLE)));
    }
    statements.extend(STATEMENTS.map(str::to_owned));
    // Everybody may enter a database, unless that was taken from everybody.
    let sql = format!(
        "SELECT datname::text FROM pg_catalog.pg_database WHERE datallowconn AND {NOT_EMPTY} \
         AND NOT EXISTS (SELECT FROM pg_catalog.aclexplode(coalesce(datacl, pg_catalog.acldefault('d', datdba))) x \
         WHERE x.grantee = 0 AND x.privilege_type = 'CONNECT') ORDER BY datname"
    );
    for database in session.column::<String>(&sql, &[]).await? {
        statements.push(format!(
            "GRANT CONNECT ON DATABASE {} TO {}",
            identifier(&database),
            identifier(ROLE)
        ));
    }
    for statement in &statements {
        session
            .run(statement)
            .await
            .with_context(|| format!("the server refuses '{statement}'"))?;
    }
    Ok(statements)
}

/// Tells of a superuser that a role of its own could do the work of.
pub(super) async fn finding(config: &Postgresql, session: &Session) -> Option<Finding> {
    let superuser = session
        .value::<bool>("SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user", &[])
        .await
        .ok()?;
    (superuser && session.major >= SINCE && config.by_socket()).then(|| {
        Finding::warning(
            "postgresql role",
            format!(
                "'{}' is a superuser, and a backup only reads: 'gitlab-backup init --role' makes a role of its own (README, 'A role of its own')",
                config.user
            ),
        )
    })
}
