//! How a server is asked: sessions of our own for queries, libpq's programs for dumps. Everything
//! that a program is told comes by its environment, no secret and no name in its arguments.

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

/// Where statements run that are about databases. Not `postgres`: that one may be restored itself.
pub(crate) const MAINTENANCE: &str = "template1";

/// By this comment a database is known that a restore has laid out, until it takes its place, or
/// could not remove.
pub(crate) const OURS: &str = "laid out by gitlab-backup restore";
/// Those (`$1` is [`OURS`]), by the names that a restore gives: a comment alone is its owner's to
/// write.
const BESIDE: &str = "datname ~ '_(restored|replaced)_[0-9]+(_rehearsed)?$' \
    AND coalesce(pg_catalog.shobj_description(oid, 'pg_database') = $1::text, false)";

/// All but those that every server has, of which nothing is missed.
pub(super) const NOT_EMPTY: &str = "datname NOT IN ('template0', 'template1')";

/// How long a session that insists tries to enter a server that is full, and between two tries.
const PERSISTENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(50);

/// What the server shows the sessions as that lay out what a restore puts in place.
pub(crate) const LOADING: &str = "gitlab-backup-restore";

/// One role of one server.
pub(crate) struct Client {
    pub login: Login,
    /// libpq's password file, once one of its programs needs it; removed with this value.
    passfile: OnceLock<NamedTempFile>,
}

impl Client {
    /// The role that backs up.
    pub fn new(config: &Postgresql) -> Result<Self> {
        let password = config
            .password
            .as_ref()
            .map(|source| secret::read(source, credential::POSTGRESQL))
            .transpose()?;
        Self::with(config.clone(), password)
    }

    /// The role that restores.
    pub fn restoring(config: &Postgresql) -> Result<Self> {
        Self::new(&config.restoring())
    }

    /// The same, under a name by which the sessions of a restore that was killed are known.
    pub fn loading(config: &Postgresql) -> Result<Self> {
        let mut client = Self::restoring(config)?;
        client.login.application = LOADING;
        Ok(client)
    }

    /// The role that `config` names, by this password and no other.
    ///
    /// # Errors
    /// If this is root, and there is no such OS user as `config` names.
    pub fn with(config: Postgresql, password: Option<String>) -> Result<Self> {
        Ok(Self { login: Login::new(config, password)?, passfile: OnceLock::new() })
    }

    /// A session in `database`.
    pub async fn connect(&self, database: &str) -> Result<Session> {
        Session::open(&self.login, database).await.with_context(|| self.login.place(database))
    }

    /// A session in `database` that waits for no lock of others: with GitLab down, nobody is waited
    /// for.
    pub async fn insist(&self, database: &str) -> Result<Session> {
        self.enter(database)
            .await?
            .insisting(self.enter(database).await?)
            .await
            .with_context(|| self.login.place(database))
    }

    /// A session in `database`, if need be after others that fill the server (anybody may, for as
    /// long as each is asked who he is), or when a server is back that was just restarted.
    async fn enter(&self, database: &str) -> Result<Session> {
        let until = Instant::now() + PERSISTENCE;
        loop {
            match self.connect(database).await {
                Err(error) if passes(&error) && Instant::now() < until => sleep(PAUSE).await,
                done => return done,
            }
        }
    }

    /// One of libpq's programs, about to talk to `database` of a server of this major version.
    pub fn command(&self, program: &str, database: &str, major: u32) -> Result<Command> {
        self.command_at(self.program(program, major), database, major)
    }

    /// The same, of the program at this path.
    pub fn command_at(&self, program: PathBuf, database: &str, major: u32) -> Result<Command> {
        let mut command = self.run(program);
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

    /// For libpq: the password of every server, readable for whom the programs run as.
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
        let file = file.context("cannot make a temporary file")?;
        Ok(self.passfile.get_or_init(|| file).path())
    }

    /// One of libpq's programs that needs no server.
    pub fn command_offline(&self, program: &str) -> Command {
        self.run(path_of(program, Some(&self.login.config)))
    }

    /// The same, of the version that goes with a server of this major version.
    pub fn command_for(&self, program: &str, major: u32) -> Command {
        self.run(self.program(program, major))
    }

    /// The program of the version that goes with a server of this one, where it is: what a newer
    /// one writes, the server may not understand.
    pub fn program(&self, program: &str, major: u32) -> PathBuf {
        let own = self.login.config.bin_dir.is_none().then(|| of_version(program, major)).flatten();
        own.unwrap_or_else(|| path_of(program, Some(&self.login.config)))
    }

    /// With an environment of its own: ours may have secrets in it.
    pub fn run(&self, program: PathBuf) -> Command {
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

    /// What to back up: the configured databases, or all but the server's own templates, those that
    /// let nobody in and those of a restore. That an owner has made a template of his own hides
    /// nothing.
    pub async fn databases(&self) -> Result<Vec<String>> {
        if let Some(names) = &self.login.config.databases {
            return Ok(names.clone());
        }
        let sql = format!(
            "SELECT datname::text FROM pg_catalog.pg_database WHERE datallowconn AND {NOT_EMPTY} AND datconnlimit <> -2 AND NOT ({BESIDE}) \
             ORDER BY datname"
        );
        self.connect_anywhere().await?.0.column(&sql, &[&OURS]).await
    }

    /// Databases that a restore has left beside GitLab's. None where the configuration names what
    /// to back up.
    pub async fn beside(&self) -> Result<Vec<String>> {
        if self.login.config.databases.is_some() {
            return Ok(Vec::new());
        }
        let sql = format!(
            "SELECT datname::text FROM pg_catalog.pg_database WHERE {BESIDE} ORDER BY datname"
        );
        self.connect_anywhere().await?.0.column(&sql, &[&OURS]).await
    }

    /// Databases that the server lets nobody into, in words. None where the configuration names
    /// what to back up.
    pub async fn closed(&self) -> Result<Vec<String>> {
        if self.login.config.databases.is_some() {
            return Ok(Vec::new());
        }
        let sql = format!(
            "SELECT datname::text, datconnlimit = -2 FROM pg_catalog.pg_database \
             WHERE (datconnlimit = -2 OR NOT datallowconn AND {NOT_EMPTY}) AND NOT ({BESIDE}) ORDER BY datname"
        );
        let rows = self.connect_anywhere().await?.0.rows(&sql, &[&OURS]).await?;
        let words = |row: &tokio_postgres::Row| -> Result<String> {
            let (name, half): (String, bool) = (row.try_get(0)?, row.try_get(1)?);
            Ok(match half {
                true => format!(
                    "left out: database '{name}', of which a DROP DATABASE was interrupted (datconnlimit -2): drop it, nobody can enter it any more"
                ),
                false => format!(
                    "left out: database '{name}', which lets nobody in: ALTER DATABASE … ALLOW_CONNECTIONS true, or drop it, or name in [postgresql] \
                     databases what to back up"
                ),
            })
        };
        rows.iter().map(words).collect()
    }

    /// A session for what belongs to no database, in the first that lets the role in, and that
    /// database's name.
    ///
    /// # Errors
    /// That of the first, if none does.
    pub async fn connect_anywhere(&self) -> Result<(Session, String)> {
        let configured = self.login.config.databases.iter().flatten().map(String::as_str);
        let mut first = None;
        for name in ["postgres", "template1"].into_iter().chain(configured) {
            match self.connect(name).await {
                Ok(session) => return Ok((session, name.to_owned())),
                // Whom the server itself turns away here, it may let in elsewhere.
                Err(error) if session::code(&error).is_some() => drop(first.get_or_insert(error)),
                Err(error) => return Err(first.unwrap_or(error)),
            }
        }
        Err(first.unwrap_or_else(|| anyhow!("no database")))
    }
}

/// Whether a server that did not let us in may do so in a moment.
fn passes(error: &anyhow::Error) -> bool {
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
