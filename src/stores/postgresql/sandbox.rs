//! The role without rights as which a dump is loaded.
//!
//! Loading a dump runs code of the database's owner: check constraints, the input functions of
//! domains, expressions of indexes, generated columns. That code runs with the rights of the
//! session that loads, and can undo a `SET ROLE`. So the session logs in as a role that has no
//! rights. This role owns everything in the new database until the database is full; then a
//! superuser's session hands everything over to its owners, and only after that may others connect.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use postgres_protocol::password::scram_sha_256;
use tokio_postgres::error::SqlState;

use crate::accounts;
use crate::config::Postgresql;
use crate::host::random;

use super::client::Client;
use super::client::MAINTENANCE;
use super::quoting::{identifier, literal};
use super::session::{self, Session};

/// The name of the role.
const NAME: &str = accounts::LOADER;

/// How often to try to end a session, and the time between two tries.
const END_TRIES: u32 = 300;
const PAUSE: Duration = Duration::from_millis(100);

/// The roles that may take on the role and are not superusers: the role itself, and roles to which
/// loaded code has granted it.
const MEMBERS: &str = "SELECT r.oid FROM pg_catalog.pg_roles r \
    WHERE NOT r.rolsuper AND pg_catalog.pg_has_role(r.oid, $1::text::name, 'MEMBER')";
const SESSIONS: &str =
    "SELECT pid FROM pg_catalog.pg_stat_activity WHERE usesysid = ANY($1::oid[])";
const END: &str = "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity \
                   WHERE usename = $1::text OR pid = ANY($2::int4[])";
const LEFT: &str = "SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_activity WHERE usename = \
                    $1::text OR pid = ANY($2::int4[])";
const END_OTHERS: &str = "SELECT pg_catalog.pg_terminate_backend(a.pid) FROM \
                          pg_catalog.pg_stat_activity a \
    JOIN pg_catalog.pg_roles r ON r.oid = a.usesysid WHERE a.datname = \
    pg_catalog.current_database() AND NOT r.rolsuper";
const OWNED: &str = "SELECT pg_catalog.count(*) FROM pg_catalog.pg_shdepend s JOIN \
                     pg_catalog.pg_database d ON d.oid = s.dbid \
    JOIN pg_catalog.pg_roles r ON r.oid = s.refobjid AND s.refclassid = \
    'pg_catalog.pg_authid'::pg_catalog.regclass \
    WHERE d.datname = pg_catalog.current_database() AND r.rolname = $1::text AND s.deptype = 'o'";
const MEMBERSHIPS: &str = "SELECT r.rolname::text, m.rolname::text FROM pg_catalog.pg_auth_members \
                           a \
    JOIN pg_catalog.pg_roles r ON r.oid = a.roleid JOIN pg_catalog.pg_roles m ON m.oid = a.member \
    WHERE r.rolname = $1::text OR m.rolname = $1::text";

/// Whether dumps must be loaded as this role: if the session's role is a superuser, whose rights
/// loaded code must not get. Another role has no more rights than the owner of the data.
pub(crate) async fn is_needed(session: &Session) -> Result<bool> {
    session
        .value("SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user", &[])
        .await
}

/// Creates the role, or resets it if it exists. Returns a client that connects as the role, with
/// processes of `os_user`.
pub(crate) async fn create(admin: &Client, session: &Session, os_user: &str) -> Result<Client> {
    // The password is needed where the server does not authenticate the OS user. Loaded code that
    // changes it cannot restore it, so [`Guard::ensure_alone`] notices the change.
    let password = random::hex(32)?;
    // Send only the hash: the server may log the statement.
    let hash = literal(&scram_sha_256(password.as_bytes()));
    let exists = exists(session).await?;
    if exists {
        lock_out(session).await?;
    }
    let word = if exists { "ALTER" } else { "CREATE" };
    let role = identifier(NAME);
    let sql = format!(
        "{word} ROLE {role} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS \
         INHERIT CONNECTION LIMIT -1 PASSWORD {hash} \
         VALID UNTIL 'infinity'"
    );
    session
        .run(&sql)
        .await
        .with_context(|| format!("cannot create role '{NAME}', as which the dumps are loaded"))?;
    session.run(&format!("ALTER ROLE {role} RESET ALL")).await?;
    revoke_memberships(session).await?;
    let config = Postgresql {
        user: NAME.to_owned(),
        os_user: os_user.to_owned(),
        ..admin.login.config.clone()
    };
    let is_peer = admin.login.by_socket() && admin.login.password.is_none();
    let mut client = Client::with(config, (!is_peer).then_some(password))?;
    client.login.application = admin.login.application;
    Ok(client)
}

/// Revokes the role from all its members, and all roles from it.
async fn revoke_memberships(session: &Session) -> Result<()> {
    for row in session.rows(MEMBERSHIPS, &[&NAME]).await? {
        let (of, member): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        session
            .run(&format!("REVOKE {} FROM {} CASCADE", identifier(&of), identifier(&member)))
            .await?;
    }
    Ok(())
}

/// Grants the role what it needs to fill the session's database. [`revoke_rights`] revokes all of
/// it.
pub(crate) async fn grant_rights(session: &Session) -> Result<()> {
    let role = identifier(NAME);
    session.run(&format!("ALTER ROLE {role} LOGIN")).await?;
    // A database's owner has these rights anyway, but the role is not the owner.
    session.run(&format!("GRANT CREATE, USAGE ON SCHEMA public TO {role}")).await?;
    let tablespaces: Vec<String> = session
        .column("SELECT spcname::text FROM pg_catalog.pg_tablespace WHERE spcname !~ '^pg_'", &[])
        .await?;
    for tablespace in tablespaces {
        session
            .run(&format!("GRANT CREATE ON TABLESPACE {} TO {role}", identifier(&tablespace)))
            .await?;
    }
    Ok(())
}

/// An event trigger that prevents loaded code from creating or changing objects. While a database
/// is loaded, the role owns all its objects: without the guard, loaded code could add an index or a
/// rule to a superuser's table, or replace another role's function, before the objects are handed
/// over.
///
/// The guard allows every statement of the session that created it, in which no loaded code runs.
/// In sessions of the role, it allows the statements of pg_restore itself, but no statement that
/// code runs within another statement, and none after code has changed certain settings of the
/// session. It allows no statement of other sessions, such as an autovacuum worker that evaluates
/// the expression of an index.
pub(crate) struct Guard {
    name: String,
    /// The hash of the role's password. Only loaded code can have changed it, to connect as the
    /// role.
    password: String,
}

/// Reads the hash of the role's password.
const PASSWORD: &str = "SELECT rolpassword FROM pg_catalog.pg_authid WHERE rolname = $1::text";

impl Guard {
    /// Creates the guard in the session's database.
    pub async fn create(session: &Session) -> Result<Self> {
        // A name that no object in a dump has.
        let name = format!("gitlab_backup_{}", random::hex(16)?);
        let role = literal(NAME);
        let own: i32 = session.value("SELECT pg_catalog.pg_backend_pid()", &[]).await?;
        // The context (PG_CONTEXT) of a statement of pg_restore is one line, for this function. If
        // code runs the statement, there is a line for that code, too. All names are qualified,
        // because this function cannot set a search path of its own: it has to check the session's.
        // The encodings are those in which a backslash or a letter may be the second byte of a
        // character.
        let sql = format!(
            "CREATE SCHEMA {name};
            CREATE FUNCTION {name}.guard () RETURNS event_trigger LANGUAGE plpgsql AS $guard$
            DECLARE context text; BEGIN
              IF pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.=) {own} THEN RETURN; END IF;
              IF session_user OPERATOR(pg_catalog.<>) {role}::pg_catalog.name OR current_user \
              OPERATOR(pg_catalog.<>) session_user THEN
                RAISE EXCEPTION '% by another session, while the database is loaded', tg_tag;
              END IF;
              GET DIAGNOSTICS context = PG_CONTEXT;
              IF pg_catalog.strpos(context, E'\n') OPERATOR(pg_catalog.>) 0
                OR pg_catalog.current_query() OPERATOR(pg_catalog.~*) \
                '^[[:space:]]*(copy|insert|select|with|update|delete|analyze|vacuum)[[:space:]]' \
                THEN
                RAISE EXCEPTION '% by code of the database, while it is loaded', tg_tag USING \
                DETAIL = context;
              END IF;
              IF pg_catalog.current_setting('search_path') OPERATOR(pg_catalog.<>) ''
                OR pg_catalog.current_setting('standard_conforming_strings') \
                OPERATOR(pg_catalog.<>) 'on'
                OR pg_catalog.current_setting('transform_null_equals') OPERATOR(pg_catalog.<>) 'off'
                OR pg_catalog.current_setting('array_nulls') OPERATOR(pg_catalog.<>) 'on'
                OR pg_catalog.current_setting('IntervalStyle') OPERATOR(pg_catalog.<>) 'postgres'
                OR pg_catalog.strpos(pg_catalog.current_setting('DateStyle'), 'ISO') \
                OPERATOR(pg_catalog.<>) 1
                OR pg_catalog.current_setting('client_encoding')
                  OPERATOR(pg_catalog.=) ANY (ARRAY['BIG5', 'GB18030', 'GBK', 'JOHAB', \
                  'SHIFT_JIS_2004', 'SJIS', 'UHC']) THEN
                RAISE EXCEPTION '% under settings of code of the database, while it is loaded', \
                tg_tag;
              END IF;
            END $guard$;
            CREATE EVENT TRIGGER {name} ON ddl_command_start EXECUTE PROCEDURE {name}.guard ();"
        );
        session
            .script(&sql)
            .await
            .context("cannot create the guard against code of the database")?;
        Ok(Self { name, password: session.value(PASSWORD, &[&NAME]).await? })
    }

    /// Fails if loaded code has changed the role's password, and so may have connected as the role.
    pub async fn ensure_alone(&self, session: &Session) -> Result<()> {
        let now: Option<String> = session.value(PASSWORD, &[&NAME]).await?;
        ensure!(
            now.as_ref() == Some(&self.password),
            "code of the database has given role '{NAME}' another password, while it was loaded"
        );
        Ok(())
    }

    /// Removes the guard. Call this when all objects are handed over to their owners.
    pub async fn remove(self, session: &Session) -> Result<()> {
        let Self { name, .. } = self;
        session
            .script(&format!("DROP EVENT TRIGGER {name}; DROP SCHEMA {name} CASCADE;"))
            .await
            .context("cannot remove the guard of a load")
    }
}

/// Allows connections to a new database, but only for the role. The role may create objects in the
/// database, but does not own it: an owner could change its settings, and grant others access.
pub(crate) async fn open_for_role(session: &Session, database: &str) -> Result<()> {
    let (database, role) = (identifier(database), identifier(NAME));
    session
        .transaction(&[
            format!("REVOKE ALL ON DATABASE {database} FROM PUBLIC"),
            format!("GRANT CONNECT, CREATE, TEMPORARY ON DATABASE {database} TO {role}"),
            format!("ALTER DATABASE {database} ALLOW_CONNECTIONS true"),
        ])
        .await
        .with_context(|| format!("cannot keep others out of database {database}"))
}

/// Lets the role fill the configuration tables of extensions, whose rows are in the dump.
pub(crate) async fn grant_extension_rights(session: &Session) -> Result<()> {
    let sql = "SELECT pg_catalog.format(CASE c.relkind WHEN 'S' THEN 'GRANT SELECT, UPDATE ON \
               SEQUENCE %I.%I TO %I' \
            ELSE 'GRANT SELECT, INSERT ON TABLE %I.%I TO %I' END, n.nspname, c.relname, $1::text), \
            pg_catalog.format('GRANT USAGE ON SCHEMA %I TO %I', n.nspname, $1::text) \
        FROM pg_catalog.pg_extension e CROSS JOIN LATERAL pg_catalog.unnest(e.extconfig) AS kept \
        (oid) \
        JOIN pg_catalog.pg_class c ON c.oid = kept.oid JOIN pg_catalog.pg_namespace n ON n.oid = \
        c.relnamespace \
        WHERE c.relkind IN ('r', 'p', 'S')";
    for row in session.rows(sql, &[&NAME]).await? {
        let statements: [String; 2] = [row.try_get(0)?, row.try_get(1)?];
        session
            .transaction(&statements)
            .await
            .context("cannot grant access to the configuration tables of an extension")?;
    }
    Ok(())
}

/// Prevents new sessions of the role until [`grant_rights`], and ends its sessions and those of
/// other roles that may have taken it on.
pub(crate) async fn lock_out(session: &Session) -> Result<()> {
    if !exists(session).await? {
        return Ok(());
    }
    session.run(&format!("ALTER ROLE {} NOLOGIN", identifier(NAME))).await?;
    let members: Vec<u32> = session.column(MEMBERS, &[&NAME]).await?;
    revoke_memberships(session).await?;
    // Sessions that start from here on cannot take on the role any more, and need not be ended.
    let pids: Vec<i32> = session.column(SESSIONS, &[&members]).await?;
    for _ in 0..END_TRIES {
        session.rows(END, &[&NAME, &pids]).await?;
        if session.value::<i64>(LEFT, &[&NAME, &pids]).await? == 0 {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
    bail!("a session of role '{NAME}' does not end: look at pg_stat_activity")
}

/// Ends the other sessions in the session's database, except those of superusers.
pub(crate) async fn end_other_sessions(session: &Session) -> Result<()> {
    for _ in 0..END_TRIES {
        if session.rows(END_OTHERS, &[]).await?.is_empty() {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
    bail!("a session in a database that is being loaded does not end: look at pg_stat_activity")
}

/// Fails if the role still owns an object in the session's database.
pub(crate) async fn ensure_owns_nothing(session: &Session) -> Result<()> {
    let count: i64 = session.value(OWNED, &[&NAME]).await?;
    ensure!(count == 0, "role '{NAME}' still owns {count} objects in the loaded database");
    Ok(())
}

/// Revokes the role's rights in the session's database and on the server. Also drops the objects
/// that the role still owns in the database, so hand these over before.
pub(crate) async fn revoke_rights(session: &Session) -> Result<()> {
    session.run(&format!("DROP OWNED BY {}", identifier(NAME))).await
}

/// Fails if the role cannot connect to the server, with the remedy.
pub(crate) async fn ensure_can_connect(
    admin: &Client,
    session: &Session,
    os_user: &str,
) -> Result<()> {
    let existed = exists(session).await?;
    let client = create(admin, session, os_user).await?;
    let result = client.connect(MAINTENANCE).await.map(drop);
    // If the role existed before, it may own databases of an unfinished restore.
    if !existed {
        drop_role(session).await?;
    }
    match result {
        // The server accepts the role, but not in this database.
        Err(error) if session::code(&error) != Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
            Err(error).with_context(|| {
                let how = match admin.login.by_socket() {
                    true => format!("by 'peer' as the OS user {os_user}"),
                    false => "by its password".to_owned(),
                };
                format!(
                    "dumps are loaded as role '{NAME}', which has no rights: let it connect in \
                     pg_hba.conf, {how}"
                )
            })
        }
        _ => Ok(()),
    }
}

async fn exists(session: &Session) -> Result<bool> {
    session
        .value("SELECT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = $1::text)", &[&NAME])
        .await
}

/// Drops the role. The databases that belong to it must have been dropped before.
pub(crate) async fn drop_role(session: &Session) -> Result<()> {
    if !exists(session).await? {
        return Ok(());
    }
    lock_out(session).await?;
    revoke_rights(session).await?;
    match session.run(&format!("DROP ROLE {}", identifier(NAME))).await {
        // Any other role may have given it an object, in any database. Keep the role: it cannot log
        // in, and the next restore reuses it.
        Err(error) if session::code(&error) == Some(&SqlState::DEPENDENT_OBJECTS_STILL_EXIST) => {
            tracing::warn!("cannot drop role '{NAME}', which cannot log in any more: {error:#}");
            Ok(())
        }
        result => result.with_context(|| format!("cannot drop role '{NAME}'")),
    }
}
