//! Connects to a server: with sessions of this program for queries, and with libpq's programs for
//! dumps. Programs get the server, the role and the database through their environment and the
//! password in a file, because other users can see their arguments.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use tempfile::NamedTempFile;
use tokio::process::Command;
use tokio::time::sleep;
use tokio_postgres::error::SqlState;

use crate::config::Postgresql;
use crate::host::secret;
use crate::units::render::credential;

use super::login::Login;
use super::session::{self, Session, settings};
use super::versions::{of_version, path_of};

/// The database to connect to for statements about databases. Not `postgres`, which may itself be
/// restored.
pub(crate) const MAINTENANCE: &str = "template1";

/// The comment that marks a database as created by a restore. A restore removes the comment when it
/// puts the database in place, and sets it on an old database that it cannot drop.
pub(crate) const RESTORE_MARK: &str = "laid out by gitlab-backup restore";
/// The condition for databases of a restore; `$1` is [`RESTORE_MARK`]. It also checks the name,
/// because the owner of any database can set the comment.
const OF_RESTORE: &str = "datname ~ '_(restored|replaced)_[0-9]+(_rehearsed)?$' \
    AND coalesce(pg_catalog.shobj_description(oid, 'pg_database') = $1::text, false)";

/// The condition for databases other than the templates that every server has.
pub(super) const NOT_TEMPLATE: &str = "datname NOT IN ('template0', 'template1')";

/// How long to retry a connection that fails for a reason which may pass, and between two tries.
const RETRY_FOR: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(50);

/// The `application_name` of the sessions in which a restore loads dumps.
pub(crate) const LOADING_APPLICATION: &str = "gitlab-backup-restore";

/// One role of one server.
pub(crate) struct Client {
    pub login: Login,
    /// libpq's password file. Created for the first program that needs it, removed with this value.
    passfile: OnceLock<NamedTempFile>,
}

impl Client {
    /// Returns a client for the role that backs up.
    pub fn new(config: &Postgresql) -> Result<Self> {
        let password = config
            .password
            .as_ref()
            .map(|source| secret::read(source, credential::POSTGRESQL))
            .transpose()?;
        Self::with(config.clone(), password)
    }

    /// Returns a client for the role that restores.
    pub fn restoring(config: &Postgresql) -> Result<Self> {
        Self::new(&config.restoring())
    }

    /// Like [`restoring`](Self::restoring), with the application name [`LOADING_APPLICATION`]: so
    /// the sessions of a killed restore can be found.
    pub fn loading(config: &Postgresql) -> Result<Self> {
        let mut client = Self::restoring(config)?;
        client.login.application = LOADING_APPLICATION;
        Ok(client)
    }

    /// Returns a client for the role that `config` names, with this password instead of the
    /// configured one.
    ///
    /// # Errors
    /// If this process is root, and the OS user that `config` names does not exist.
    pub fn with(config: Postgresql, password: Option<String>) -> Result<Self> {
        Ok(Self { login: Login::new(config, password)?, passfile: OnceLock::new() })
    }

    /// Opens a session in `database`.
    pub async fn connect(&self, database: &str) -> Result<Session> {
        Session::open(&self.login, database).await.with_context(|| self.login.describe(database))
    }

    /// Opens a session in `database` that ends the sessions which block it: while GitLab is down, a
    /// restore does not wait for locks of other sessions.
    pub async fn connect_ending_blockers(&self, database: &str) -> Result<Session> {
        self.connect_with_retry(database)
            .await?
            .ending_blockers(self.connect_with_retry(database).await?)
            .await
            .with_context(|| self.login.describe(database))
    }

    /// Opens a session in `database`. Retries while the server has too many connections (anybody
    /// can open connections, which count until they fail to authenticate) or is restarting.
    async fn connect_with_retry(&self, database: &str) -> Result<Session> {
        let until = Instant::now() + RETRY_FOR;
        loop {
            match self.connect(database).await {
                Err(error) if is_temporary(&error) && Instant::now() < until => sleep(PAUSE).await,
                done => return done,
            }
        }
    }

    /// Returns the command of one of libpq's programs, set up to connect to `database`. `major` is
    /// the server's major version.
    pub fn command(&self, program: &str, database: &str, major: u32) -> Result<Command> {
        self.command_at(self.program(program, major), database, major)
    }

    /// Like [`command`](Self::command), for the program at this path.
    pub fn command_at(&self, program: PathBuf, database: &str, major: u32) -> Result<Command> {
        let mut command = self.bare_command(program);
        let options: Vec<String> =
            settings(major).map(|(name, value)| format!("-c {name}={value}")).collect();
        command
            .env("PGHOST", &self.login.config.host)
            .env("PGPORT", self.login.config.port.to_string())
            .env("PGUSER", &self.login.config.user)
            .env("PGDATABASE", database)
            .env("PGAPPNAME", self.login.application)
            .env("PGCONNECT_TIMEOUT", "20")
            .env("PGOPTIONS", options.join(" "))
            .arg("--no-password");
        if let Some(password) = &self.login.password {
            command.env("PGPASSFILE", self.passfile(password)?);
        }
        Ok(command)
    }

    /// Creates libpq's password file, readable for the account of libpq's programs.
    fn passfile(&self, password: &str) -> Result<&Path> {
        if let Some(file) = self.passfile.get() {
            return Ok(file.path());
        }
        let write = || -> Result<NamedTempFile> {
            let mut file = NamedTempFile::new()?;
            writeln!(file, "*:*:*:*:{}", password.replace('\\', "\\\\").replace(':', "\\:"))?;
            Ok(file)
        };
        let file = match self.login.account {
            Some(account) => account.act(write),
            None => write(),
        };
        let file = file.context("cannot create a temporary file")?;
        Ok(self.passfile.get_or_init(|| file).path())
    }

    /// Returns the command of one of libpq's programs that does not connect to a server.
    pub fn command_offline(&self, program: &str) -> Command {
        self.bare_command(path_of(program, Some(&self.login.config)))
    }

    /// Like [`command_offline`](Self::command_offline), for the program of the server's major
    /// version, if that is installed.
    pub fn command_for(&self, program: &str, major: u32) -> Command {
        self.bare_command(self.program(program, major))
    }

    /// Returns the path of the program of the server's major version if that is installed,
    /// otherwise of any version: a server may not understand the output of a newer program.
    pub fn program(&self, program: &str, major: u32) -> PathBuf {
        let same =
            self.login.config.bin_dir.is_none().then(|| of_version(program, major)).flatten();
        same.unwrap_or_else(|| path_of(program, Some(&self.login.config)))
    }

    /// Returns a command with an almost empty environment, since that of this process may contain
    /// secrets, and with the account of [`Login`].
    pub fn bare_command(&self, program: PathBuf) -> Command {
        let mut command = Command::new(program);
        command.env_clear().envs(
            ["PATH", "TMPDIR", "TZ"]
                .into_iter()
                .filter_map(|name| Some((name, std::env::var_os(name)?))),
        );
        command.env("LC_ALL", "C").current_dir("/");
        if let Some(account) = self.login.account {
            command.uid(account.uid).gid(account.gid);
        }
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// Lists the databases to back up: the configured ones, or all except the server's templates,
    /// databases that allow no connections, and those of a restore. Databases that an owner has
    /// marked as a template are included.
    pub async fn databases(&self) -> Result<Vec<String>> {
        if let Some(names) = &self.login.config.databases {
            return Ok(names.clone());
        }
        let sql = format!(
            "SELECT datname::text FROM pg_catalog.pg_database WHERE datallowconn AND \
             {NOT_TEMPLATE} AND datconnlimit <> -2 AND NOT ({OF_RESTORE}) \
             ORDER BY datname"
        );
        self.connect_anywhere().await?.0.column(&sql, &[&RESTORE_MARK]).await
    }

    /// Lists the databases that a restore has left. Empty if the configuration names the databases
    /// to back up.
    pub async fn databases_of_restores(&self) -> Result<Vec<String>> {
        if self.login.config.databases.is_some() {
            return Ok(Vec::new());
        }
        let sql = format!(
            "SELECT datname::text FROM pg_catalog.pg_database WHERE {OF_RESTORE} ORDER BY datname"
        );
        self.connect_anywhere().await?.0.column(&sql, &[&RESTORE_MARK]).await
    }

    /// Lists the databases that allow no connections, with a sentence about each. Empty if the
    /// configuration names the databases to back up.
    pub async fn inaccessible_databases(&self) -> Result<Vec<String>> {
        if self.login.config.databases.is_some() {
            return Ok(Vec::new());
        }
        let sql = format!(
            "SELECT datname::text, datconnlimit = -2 FROM pg_catalog.pg_database \
             WHERE (datconnlimit = -2 OR NOT datallowconn AND {NOT_TEMPLATE}) AND NOT \
             ({OF_RESTORE}) ORDER BY datname"
        );
        let rows = self.connect_anywhere().await?.0.rows(&sql, &[&RESTORE_MARK]).await?;
        let describe = |row: &tokio_postgres::Row| -> Result<String> {
            let (name, is_half_dropped): (String, bool) = (row.try_get(0)?, row.try_get(1)?);
            Ok(match is_half_dropped {
                true => format!(
                    "left out: database '{name}', of which a DROP DATABASE was interrupted \
                     (datconnlimit -2): drop it, since it allows no connections any more"
                ),
                false => format!(
                    "left out: database '{name}', which allows no connections: ALTER DATABASE … \
                     ALLOW_CONNECTIONS true, or drop it, or list the databases to back up \
                     in [postgresql] databases"
                ),
            })
        };
        rows.iter().map(describe).collect()
    }

    /// Opens a session in the first database that accepts the role, for queries that can run in any
    /// database. Returns it with the name of the database.
    ///
    /// # Errors
    /// With the error of the first database, if none accepts the role.
    pub async fn connect_anywhere(&self) -> Result<(Session, String)> {
        let configured = self.login.config.databases.iter().flatten().map(String::as_str);
        let mut first = None;
        for name in ["postgres", "template1"].into_iter().chain(configured) {
            match self.connect(name).await {
                Ok(session) => return Ok((session, name.to_owned())),
                // The server refused this database only, and may accept the role in another one.
                Err(error) if session::code(&error).is_some() => drop(first.get_or_insert(error)),
                Err(error) => return Err(first.unwrap_or(error)),
            }
        }
        Err(first.unwrap_or_else(|| anyhow!("no database")))
    }
}

/// Whether a connection failed for a reason that may pass in a moment.
fn is_temporary(error: &anyhow::Error) -> bool {
    let codes = [
        SqlState::TOO_MANY_CONNECTIONS,
        SqlState::CANNOT_CONNECT_NOW,
        SqlState::ADMIN_SHUTDOWN,
        SqlState::CRASH_SHUTDOWN,
    ];
    let kinds = [
        ErrorKind::NotFound,
        ErrorKind::ConnectionRefused,
        ErrorKind::ConnectionReset,
        ErrorKind::BrokenPipe,
    ];
    let kind = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|error| kinds.contains(&error.kind()))
    };
    session::code(error).is_some_and(|code| codes.contains(code)) || error.chain().any(kind)
}
