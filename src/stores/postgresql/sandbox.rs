//! A role without rights, as which a dump is loaded.
//!
//! What is loaded may be code of the database's owner: a check, the input of a domain, an index's
//! expression, a generated column. It runs as whoever loads, and can go back from any role that a
//! session has only taken on. So the session itself is one of a role that has nothing: it owns all
//! that is in the new database until that is full, and nobody else is let in before everything has
//! been handed over.

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

/// The role.
const NAME: &str = accounts::LOADER;

/// How often its sessions are ended, and between two times.
const SILENCE: u32 = 300;
const PAUSE: Duration = Duration::from_millis(100);

/// Who may take the role on, and is no superuser: itself, and whom its code has lent it to.
const BORROWERS: &str = "SELECT r.oid FROM pg_catalog.pg_roles r \
    WHERE NOT r.rolsuper AND pg_catalog.pg_has_role(r.oid, $1::text::name, 'MEMBER')";
const SESSIONS: &str =
    "SELECT pid FROM pg_catalog.pg_stat_activity WHERE usesysid = ANY($1::oid[])";
const END: &str = "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE usename = $1::text OR pid = ANY($2::int4[])";
const LEFT: &str = "SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_activity WHERE usename = $1::text OR pid = ANY($2::int4[])";
const END_OTHERS: &str = "SELECT pg_catalog.pg_terminate_backend(a.pid) FROM pg_catalog.pg_stat_activity a \
    JOIN pg_catalog.pg_roles r ON r.oid = a.usesysid WHERE a.datname = pg_catalog.current_database() AND NOT r.rolsuper";
const OWNED: &str = "SELECT pg_catalog.count(*) FROM pg_catalog.pg_shdepend s JOIN pg_catalog.pg_database d ON d.oid = s.dbid \
    JOIN pg_catalog.pg_roles r ON r.oid = s.refobjid AND s.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass \
    WHERE d.datname = pg_catalog.current_database() AND r.rolname = $1::text AND s.deptype = 'o'";
const MEMBERSHIPS: &str = "SELECT r.rolname::text, m.rolname::text FROM pg_catalog.pg_auth_members a \
    JOIN pg_catalog.pg_roles r ON r.oid = a.roleid JOIN pg_catalog.pg_roles m ON m.oid = a.member \
    WHERE r.rolname = $1::text OR m.rolname = $1::text";

/// Whether this session's role may do anything: then it has rights that must not be lent. One that
/// may not has none that the data's owner would not have.
pub(crate) async fn is_needed(session: &Session) -> Result<bool> {
    session
        .value("SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user", &[])
        .await
}

/// Makes the role, or makes of what is there under its name what it should be; `os_user` connects
/// as it.
pub(crate) async fn make(admin: &Client, session: &Session, os_user: &str) -> Result<Client> {
    // A socket goes by the user; anything else by this password, which nobody has to know. Code
    // that gives the role another one cannot put this one back, which [`Guard::ensure_alone`] looks
    // for.
    let password = random::hex(32)?;
    // The server is told what it keeps, and not what its log would keep.
    let hash = literal(&scram_sha_256(password.as_bytes()));
    let there = exists(session).await?;
    if there {
        silence(session).await?;
    }
    let word = if there { "ALTER" } else { "CREATE" };
    let role = identifier(NAME);
    let sql = format!(
        "{word} ROLE {role} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS INHERIT CONNECTION LIMIT -1 PASSWORD {hash} \
         VALID UNTIL 'infinity'"
    );
    session
        .run(&sql)
        .await
        .with_context(|| format!("cannot make role '{NAME}', as which the dumps are loaded"))?;
    session.run(&format!("ALTER ROLE {role} RESET ALL")).await?;
    alone(session).await?;
    let config = Postgresql {
        user: NAME.to_owned(),
        os_user: os_user.to_owned(),
        ..admin.login.config.clone()
    };
    let by_user = admin.login.by_socket() && admin.login.password.is_none();
    let mut client = Client::with(config, (!by_user).then_some(password))?;
    client.login.application = admin.login.application;
    Ok(client)
}

/// Takes the role from whoever has it, and what it has from it.
async fn alone(session: &Session) -> Result<()> {
    for row in session.rows(MEMBERSHIPS, &[&NAME]).await? {
        let (of, member): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        session
            .run(&format!("REVOKE {} FROM {} CASCADE", identifier(&of), identifier(&member)))
            .await?;
    }
    Ok(())
}

/// Lets the role use what is not in the database that it fills; [`dismiss`] takes all of that back.
pub(crate) async fn equip(session: &Session) -> Result<()> {
    let role = identifier(NAME);
    session.run(&format!("ALTER ROLE {role} LOGIN")).await?;
    // A database's owner has it by itself.
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

/// What keeps a database's own code from making or changing anything while it is loaded, when the
/// role owns all of it: what belongs to others (a superuser's table, another role's function) would
/// come back with an index, a rule or a body of that code's.
///
/// It lets through the session that put it up, in which no such code runs, and of the role's own
/// sessions what pg_restore asks for by itself: not what code asks for in the middle of another
/// statement, and nothing under settings that code has left behind in the session. Of everybody
/// else, such as an autovacuum worker that computes the expression of an index, it lets nothing
/// through.
pub(crate) struct Guard {
    name: String,
    /// What the server knows the role's password by: only code in a session of the role can have
    /// changed it, to enter as the role.
    password: String,
}

/// What the server knows the role's password by.
const PASSWORD: &str = "SELECT rolpassword FROM pg_catalog.pg_authid WHERE rolname = $1::text";

impl Guard {
    /// Puts it up in the session's database.
    pub async fn up(session: &Session) -> Result<Self> {
        // A name that nothing in a dump has.
        let name = format!("gitlab_backup_{}", random::hex(16)?);
        let role = literal(NAME);
        let own: i32 = session.value("SELECT pg_catalog.pg_backend_pid()", &[]).await?;
        // By itself a statement of pg_restore has one line of context, this function's; what code
        // asks for has that code's too. Every name is qualified, for the search path is looked at
        // and so must be the session's. The encodings are those in which a backslash or a letter
        // may be the second byte of a character.
        let sql = format!(
            "CREATE SCHEMA {name};
            CREATE FUNCTION {name}.guard () RETURNS event_trigger LANGUAGE plpgsql AS $guard$
            DECLARE context text; BEGIN
              IF pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.=) {own} THEN RETURN; END IF;
              IF session_user OPERATOR(pg_catalog.<>) {role}::pg_catalog.name OR current_user OPERATOR(pg_catalog.<>) session_user THEN
                RAISE EXCEPTION '% by somebody else, while the database is loaded', tg_tag;
              END IF;
              GET DIAGNOSTICS context = PG_CONTEXT;
              IF pg_catalog.strpos(context, E'\n') OPERATOR(pg_catalog.>) 0
                OR pg_catalog.current_query() OPERATOR(pg_catalog.~*) '^[[:space:]]*(copy|insert|select|with|update|delete|analyze|vacuum)[[:space:]]' THEN
                RAISE EXCEPTION '% by code of the database, while it is loaded', tg_tag USING DETAIL = context;
              END IF;
              IF pg_catalog.current_setting('search_path') OPERATOR(pg_catalog.<>) ''
                OR pg_catalog.current_setting('standard_conforming_strings') OPERATOR(pg_catalog.<>) 'on'
                OR pg_catalog.current_setting('transform_null_equals') OPERATOR(pg_catalog.<>) 'off'
                OR pg_catalog.current_setting('array_nulls') OPERATOR(pg_catalog.<>) 'on'
                OR pg_catalog.current_setting('IntervalStyle') OPERATOR(pg_catalog.<>) 'postgres'
                OR pg_catalog.strpos(pg_catalog.current_setting('DateStyle'), 'ISO') OPERATOR(pg_catalog.<>) 1
                OR pg_catalog.current_setting('client_encoding')
                  OPERATOR(pg_catalog.=) ANY (ARRAY['BIG5', 'GB18030', 'GBK', 'JOHAB', 'SHIFT_JIS_2004', 'SJIS', 'UHC']) THEN
                RAISE EXCEPTION '% under settings of code of the database, while it is loaded', tg_tag;
              END IF;
            END $guard$;
            CREATE EVENT TRIGGER {name} ON ddl_command_start EXECUTE PROCEDURE {name}.guard ();"
        );
        session
            .script(&sql)
            .await
            .context("cannot keep the code of the database from changing it")?;
        Ok(Self { name, password: session.value(PASSWORD, &[&NAME]).await? })
    }

    /// Fails if somebody may have entered as the role meanwhile.
    pub async fn ensure_alone(&self, session: &Session) -> Result<()> {
        let now: Option<String> = session.value(PASSWORD, &[&NAME]).await?;
        ensure!(
            now.as_ref() == Some(&self.password),
            "code of the database has given role '{NAME}' another password, while it was loaded"
        );
        Ok(())
    }

    /// Takes it away, when everything belongs to whom it should.
    pub async fn down(self, session: &Session) -> Result<()> {
        let Self { name, .. } = self;
        session
            .script(&format!("DROP EVENT TRIGGER {name}; DROP SCHEMA {name} CASCADE;"))
            .await
            .context("cannot remove the guard of a load")
    }
}

/// Opens a new database, in which nobody has been yet, to nobody but the role, which may make in it
/// what it likes. It is not the role's own: whose it is may give it settings and let others in.
pub(crate) async fn open_alone(session: &Session, database: &str) -> Result<()> {
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

/// Lets the role fill what extensions keep their configuration in, whose rows are in a dump.
pub(crate) async fn equip_for_extensions(session: &Session) -> Result<()> {
    let sql = "SELECT pg_catalog.format(CASE c.relkind WHEN 'S' THEN 'GRANT SELECT, UPDATE ON SEQUENCE %I.%I TO %I' \
            ELSE 'GRANT SELECT, INSERT ON TABLE %I.%I TO %I' END, n.nspname, c.relname, $1::text), \
            pg_catalog.format('GRANT USAGE ON SCHEMA %I TO %I', n.nspname, $1::text) \
        FROM pg_catalog.pg_extension e CROSS JOIN LATERAL pg_catalog.unnest(e.extconfig) AS kept (oid) \
        JOIN pg_catalog.pg_class c ON c.oid = kept.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
        WHERE c.relkind IN ('r', 'p', 'S')";
    for row in session.rows(sql, &[&NAME]).await? {
        let statements: [String; 2] = [row.try_get(0)?, row.try_get(1)?];
        session
            .transaction(&statements)
            .await
            .context("cannot have an extension's configuration filled")?;
    }
    Ok(())
}

/// Ends the role's sessions, and those of others that may have taken it on, and lets nobody begin
/// one until it is equipped again.
pub(crate) async fn silence(session: &Session) -> Result<()> {
    if !exists(session).await? {
        return Ok(());
    }
    session.run(&format!("ALTER ROLE {} NOLOGIN", identifier(NAME))).await?;
    let borrowers: Vec<u32> = session.column(BORROWERS, &[&NAME]).await?;
    alone(session).await?;
    // Whoever comes from here on cannot take it on any more, and is left alone.
    let pids: Vec<i32> = session.column(SESSIONS, &[&borrowers]).await?;
    for _ in 0..SILENCE {
        session.rows(END, &[&NAME, &pids]).await?;
        if session.value::<i64>(LEFT, &[&NAME, &pids]).await? == 0 {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
    bail!("a session of role '{NAME}' does not end: look at pg_stat_activity")
}

/// Ends whoever else is in the session's database, in which nobody is to be but the role and
/// superusers.
pub(crate) async fn clear(session: &Session) -> Result<()> {
    for _ in 0..SILENCE {
        if session.rows(END_OTHERS, &[]).await?.is_empty() {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
    bail!("a session in a database that is laid out does not end: look at pg_stat_activity")
}

/// Fails if something in the session's database still is the role's.
pub(crate) async fn ensure_none(session: &Session) -> Result<()> {
    let count: i64 = session.value(OWNED, &[&NAME]).await?;
    ensure!(count == 0, "{count} things in the database that was loaded still are role '{NAME}'s");
    Ok(())
}

/// Takes from the role what it has in the session's database and on the server. What it owns there
/// must have been given away.
pub(crate) async fn dismiss(session: &Session) -> Result<()> {
    session.run(&format!("DROP OWNED BY {}", identifier(NAME))).await
}

/// Fails if the server would not let the role in, with what to do about it.
pub(crate) async fn probe(admin: &Client, session: &Session, os_user: &str) -> Result<()> {
    let there = exists(session).await?;
    let client = make(admin, session, os_user).await?;
    let entered = client.connect(MAINTENANCE).await.map(drop);
    // One that is there may own what an unfinished restore has laid out.
    if !there {
        retire(session).await?;
    }
    match entered {
        // Let in, and then not into this database.
        Err(error) if session::code(&error) != Some(&SqlState::INSUFFICIENT_PRIVILEGE) => Err(error).with_context(|| {
            let how = match admin.login.by_socket() {
                true => format!("by 'peer' as the OS user {os_user}"),
                false => "by its password".to_owned(),
            };
            format!("what is restored is loaded by role '{NAME}', which has no rights: let it in in pg_hba.conf, {how}")
        }),
        _ => Ok(()),
    }
}

async fn exists(session: &Session) -> Result<bool> {
    session
        .value("SELECT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = $1::text)", &[&NAME])
        .await
}

/// Removes the role. What it still owns must be gone before.
pub(crate) async fn retire(session: &Session) -> Result<()> {
    if !exists(session).await? {
        return Ok(());
    }
    silence(session).await?;
    dismiss(session).await?;
    match session.run(&format!("DROP ROLE {}", identifier(NAME))).await {
        // Anybody may have given it something of his own, in any database. Nobody can enter as it,
        // and the next restore takes it as it is.
        Err(error) if session::code(&error) == Some(&SqlState::DEPENDENT_OBJECTS_STILL_EXIST) => {
            tracing::warn!("role '{NAME}' stays, without a login: {error:#}");
            Ok(())
        }
        done => done.with_context(|| format!("cannot remove role '{NAME}'")),
    }
}
