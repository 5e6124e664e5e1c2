//! The role `gitlab-backup`, which may read everything and do nothing else: with it, the nightly
//! backup does not connect as a superuser.

use anyhow::{Context, Result, ensure};

use crate::config::Postgresql;
use crate::finding::Finding;

use super::client::MAINTENANCE;
use super::client::{Client, NOT_TEMPLATE};
use super::quoting::identifier;
use super::session::Session;

/// The role's name. `install` creates an OS user of the same name.
pub const ROLE: &str = "gitlab-backup";
/// The first version of PostgreSQL that has `pg_read_all_data`.
const SINCE: u32 = 14;

/// The statements that give the role its rights. The last one lets it read large objects, which
/// `pg_read_all_data` does not include.
const STATEMENTS: [&str; 3] = [
    "ALTER ROLE \"gitlab-backup\" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION \
     BYPASSRLS INHERIT",
    "GRANT pg_read_all_data, pg_read_all_settings, pg_read_all_stats TO \"gitlab-backup\"",
    "ALTER ROLE \"gitlab-backup\" SET lo_compat_privileges = on",
];

/// Creates the role as the role that `config` restores with, a superuser. Returns the statements
/// that ran. Running them again changes nothing.
///
/// # Errors
/// If the server is older than PostgreSQL 14, is not reached through a socket, or refuses.
pub async fn create(config: &Postgresql) -> Result<Vec<String>> {
    ensure!(
        config.by_socket(),
        "the role can only be created through a socket: {} is a host, create the role there by \
         hand (README, 'A role of its own')",
        config.host
    );
    let admin = Client::restoring(config)?;
    let session = admin.connect(MAINTENANCE).await?;
    ensure!(
        session.major >= SINCE,
        "PostgreSQL {} cannot have a role that only reads (it needs version {SINCE}): back it up \
         with a superuser",
        session.major
    );
    let exists: bool = session
        .value("SELECT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = $1::text)", &[&ROLE])
        .await?;
    let mut statements: Vec<String> = Vec::new();
    if !exists {
        statements.push(format!("CREATE ROLE {}", identifier(ROLE)));
    }
    statements.extend(STATEMENTS.map(str::to_owned));
    // Every role may connect to a database, unless that privilege was revoked from PUBLIC.
    let sql = format!(
        "SELECT datname::text FROM pg_catalog.pg_database WHERE datallowconn AND {NOT_TEMPLATE} \
         AND NOT EXISTS (SELECT FROM pg_catalog.aclexplode(coalesce(datacl, \
         pg_catalog.acldefault('d', datdba))) x \
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

/// Warns if backups connect as a superuser although the role could replace it.
pub(super) async fn finding(config: &Postgresql, session: &Session) -> Option<Finding> {
    let superuser = session
        .value::<bool>("SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user", &[])
        .await
        .ok()?;
    (superuser && session.major >= SINCE && config.by_socket()).then(|| {
        Finding::warning(
            "postgresql role",
            format!(
                "'{}' is a superuser, and a backup only reads: 'gitlab-backup init --role' creates \
                 a role that only reads (README, 'A role of its own')",
                config.user
            ),
        )
    })
}
