//! Who asks a server, and how: sessions of our own for queries, libpq's programs for dumps. Everything that a program is told comes by its
//! environment, no secret and no name in its arguments.
//!
//! By a socket without a password a server goes by the user of the process behind it. Root is never that: a session is opened, and a program
//! runs, as the OS user that the configuration names.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use nix::unistd::User;
use tempfile::NamedTempFile;
use tokio::process::Command;
use tokio::time::sleep;
use tokio_postgres::error::SqlState;

use crate::accounts;
use crate::config::Postgresql;
use crate::host::identity::Account;
use crate::host::{own, remedy};
use crate::process;
use crate::steps::{secret, user};
use crate::units::render::credential;

use super::session::{self, Session, settings};

/// Where statements run that are about databases. Not `postgres`: that one may be restored itself.
pub(in crate::steps) const MAINTENANCE: &str = "template1";

/// By this comment a database is known that a restore has laid out, until it takes its place, or could not remove.
pub(in crate::steps) const OURS: &str = "laid out by gitlab-backup restore";
/// Those (`$1` is [`OURS`]), by the names that a restore gives: a comment alone is its owner's to write.
const BESIDE: &str = "datname ~ '_(restored|replaced)_[0-9]+(_rehearsed)?$' \
    AND coalesce(pg_catalog.shobj_description(oid, 'pg_database') = $1::text, false)";

/// All but those that every server has, of which nothing is missed.
pub(super) const NOT_EMPTY: &str = "datname NOT IN ('template0', 'template1')";

/// How long a session that insists tries to enter a server that is full, and between two tries.
const PERSISTENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(50);

/// What the server shows our sessions as.
const APPLICATION: &str = "gitlab-backup";
/// The same, of those that lay out what a restore puts in place.
pub(in crate::steps) const LOADING: &str = "gitlab-backup-restore";

/// One role of one server.
pub(in crate::steps) struct Client {
    pub config: Postgresql,
    pub password: Option<String>,
    /// Whom root becomes.
    pub account: Option<Account>,
    /// What the server shows our sessions as.
    pub application: &'static str,
    /// What of our settings the server knows, as far as is known.
    pub level: AtomicU32,
    /// libpq's password file, once one of its programs needs it; removed with this value.
    passfile: OnceLock<NamedTempFile>,
}

impl Client {
    /// The role that backs up.
    pub fn new(config: &Postgresql) -> Result<Self> {
        let password = config.password.as_ref().map(|source| secret::read(source, credential::POSTGRESQL)).transpose()?;
        Self::with(config.clone(), password)
    }

    /// The role that restores.
    pub fn restoring(config: &Postgresql) -> Result<Self> {
        Self::new(&config.restoring())
    }

    /// The same, under a name by which the sessions of a restore that was killed are known.
    pub fn loading(config: &Postgresql) -> Result<Self> {
        let mut client = Self::restoring(config)?;
        client.application = LOADING;
        Ok(client)
    }

    /// The role that `config` names, by this password and no other.
    ///
    /// # Errors
    /// If this is root, and there is no such OS user as `config` names.
    pub fn with(config: Postgresql, password: Option<String>) -> Result<Self> {
        let user = user::to_become(&config.os_user).with_context(|| match config.os_user.as_str() {
            accounts::LOADER => format!("what is restored is loaded with an account of its own: '{}' makes it", remedy::install()),
            _ => "correct [postgresql] os-user".to_owned(),
        })?;
        let account = user.map(|user: User| Account { uid: user.uid.as_raw(), gid: user.gid.as_raw() });
        Ok(Self { config, password, account, application: APPLICATION, level: AtomicU32::new(u32::MAX), passfile: OnceLock::new() })
    }

    /// Whether it is reached by a socket of this host.
    pub fn by_socket(&self) -> bool {
        self.config.by_socket()
    }

    /// A session in `database`.
    pub async fn connect(&self, database: &str) -> Result<Session> {
        Session::open(self, database).await.with_context(|| self.place(database))
    }

    /// A session in `database` that waits for no lock of others: with GitLab down, nobody is waited for.
    pub async fn insist(&self, database: &str) -> Result<Session> {
        self.enter(database).await?.insisting(self.enter(database).await?).await.with_context(|| self.place(database))
    }

    /// A session in `database`, if need be after others that fill the server (anybody may, for as long as each is asked who he is), or when a server
    /// is back that was just restarted.
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
        let options: Vec<String> = settings(major).map(|(name, value)| format!("-c {name}={value}")).collect();
        command
            .env("PGHOST", &self.config.host)
            .env("PGPORT", self.config.port.to_string())
            .env("PGUSER", &self.config.user)
            .env("PGDATABASE", database)
            .env("PGAPPNAME", self.application)
            .env("PGCONNECT_TIMEOUT", "20")
            .env("PGOPTIONS", options.join(" "))
            .arg("--no-password");
        if let Some(password) = &self.password {
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
        let file = match self.account {
            Some(account) => account.act(write),
            None => write(),
        };
        let file = file.context("cannot make a temporary file")?;
        Ok(self.passfile.get_or_init(|| file).path())
    }

    /// One of libpq's programs that needs no server.
    pub fn command_offline(&self, program: &str) -> Command {
        self.run(path_of(program, Some(&self.config)))
    }

    /// The same, of the version that goes with a server of this major version.
    pub fn command_for(&self, program: &str, major: u32) -> Command {
        self.run(self.program(program, major))
    }

    /// The program of the version that goes with a server of this one, where it is: what a newer one writes, the server may not understand.
    pub fn program(&self, program: &str, major: u32) -> PathBuf {
        let own = self.config.bin_dir.is_none().then(|| of_version(program, major)).flatten();
        own.unwrap_or_else(|| path_of(program, Some(&self.config)))
    }

    /// With an environment of its own: ours may have secrets in it.
    pub fn run(&self, program: PathBuf) -> Command {
        let mut command = Command::new(program);
        command.env_clear().envs(["PATH", "TMPDIR", "TZ"].into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        command.env("LC_ALL", "C").current_dir("/");
        if let Some(account) = self.account {
            command.uid(account.uid).gid(account.gid);
        }
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// For messages.
    pub fn place(&self, database: &str) -> String {
        format!("PostgreSQL at {} port {}, database '{database}' as '{}'", self.config.host, self.config.port, self.config.user)
    }

    /// What to back up: the configured databases, or all but the server's own templates, those that let nobody in and those of a restore. That an
    /// owner has made a template of his own hides nothing.
    pub async fn databases(&self) -> Result<Vec<String>> {
        if let Some(names) = &self.config.databases {
            return Ok(names.clone());
        }
        let sql = format!(
            "SELECT datname::text FROM pg_catalog.pg_database WHERE datallowconn AND {NOT_EMPTY} AND datconnlimit <> -2 AND NOT ({BESIDE}) \
             ORDER BY datname"
        );
        self.connect_anywhere().await?.0.column(&sql, &[&OURS]).await
    }

    /// Databases that a restore has left beside GitLab's. None where the configuration names what to back up.
    pub async fn beside(&self) -> Result<Vec<String>> {
        if self.config.databases.is_some() {
            return Ok(Vec::new());
        }
        let sql = format!("SELECT datname::text FROM pg_catalog.pg_database WHERE {BESIDE} ORDER BY datname");
        self.connect_anywhere().await?.0.column(&sql, &[&OURS]).await
    }

    /// Databases that the server lets nobody into, in words. None where the configuration names what to back up.
    pub async fn closed(&self) -> Result<Vec<String>> {
        if self.config.databases.is_some() {
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

    /// A session for what belongs to no database, in the first that lets the role in, and that database's name.
    ///
    /// # Errors
    /// That of the first, if none does.
    pub async fn connect_anywhere(&self) -> Result<(Session, String)> {
        let configured = self.config.databases.iter().flatten().map(String::as_str);
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
    let codes = [SqlState::TOO_MANY_CONNECTIONS, SqlState::CANNOT_CONNECT_NOW, SqlState::ADMIN_SHUTDOWN, SqlState::CRASH_SHUTDOWN];
    let kinds = [ErrorKind::NotFound, ErrorKind::ConnectionRefused, ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
    let kind = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|error| kinds.contains(&error.kind()))
    };
    session::code(error).is_some_and(|code| codes.contains(code)) || error.chain().any(kind)
}

/// Where Debian keeps the programs of each version.
pub(in crate::steps) const DEBIAN: &str = "/usr/lib/postgresql";

/// Where one of libpq's programs is: as configured, or on `PATH`.
pub(in crate::steps) fn path_of(program: &str, config: Option<&Postgresql>) -> PathBuf {
    match config.and_then(|config| config.bin_dir.as_ref()) {
        Some(directory) => directory.join(program),
        None => all_of(program).into_iter().next().unwrap_or_else(|| PathBuf::from(program)),
    }
}

/// Every version of one of libpq's programs that is here: first what is on `PATH`, then what distributions keep, the newest first. What Debian's
/// `pg_wrapper`, a Perl script, would run is the newest: it looks into its caller's home directory, which is none of ours.
pub(in crate::steps) fn all_of(program: &str) -> Vec<PathBuf> {
    let is_wrapper = |path: &PathBuf| path.canonicalize().is_ok_and(|path| path.ends_with("pg_wrapper"));
    let on_path = process::find(program, process::search_path()).filter(|found| !is_wrapper(found));
    let kept = versions(DEBIAN, "").into_iter().rev().chain(versions("/usr", "pgsql-").into_iter().rev());
    on_path.into_iter().chain(kept.filter_map(|directory| process::find(program, [directory]))).collect()
}

/// Where distributions have it of the programs of this version.
fn of_version(program: &str, major: u32) -> Option<PathBuf> {
    let directories = [format!("{DEBIAN}/{major}/bin"), format!("/usr/pgsql-{major}/bin")];
    process::find(program, directories.map(PathBuf::from))
}

/// How libpq's programs take the name of a database, which is more than a name to them if it has a `=`.
pub(in crate::steps) fn dbname(name: &str) -> String {
    format!("dbname='{}'", name.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// Where distributions keep several versions, `PARENT/PREFIX15/bin`; the newest last.
pub(in crate::steps) fn versions(parent: &str, prefix: &str) -> Vec<PathBuf> {
    let entries = own::entries(parent).into_iter().flatten().flatten();
    let version = |name: &str| name.strip_prefix(prefix)?.parse::<u32>().ok();
    let mut found: Vec<_> =
        entries.filter_map(|entry| Some((version(&entry.file_name().to_string_lossy())?, entry.path().join("bin")))).collect();
    found.sort();
    found.into_iter().map(|(_, directory)| directory).collect()
}

/// The major version in what a program of PostgreSQL's answers to `--version`, or in what a server says of itself.
pub(in crate::steps) fn major(text: &str) -> Option<u32> {
    text.split_whitespace().find_map(|word| word.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok())
}

/// A name in SQL.
pub(in crate::steps) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A string in SQL, whatever `standard_conforming_strings` says.
pub(in crate::steps) fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_told_by_programs_and_servers() {
        assert_eq!(major("pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"), Some(15));
        assert_eq!(major("18beta2"), Some(18));
        assert_eq!(major("nonsense"), None);
    }

    #[test]
    fn no_name_or_string_leaves_its_quotes() {
        assert_eq!(identifier("a\"b\n\\!"), "\"a\"\"b\n\\!\"");
        assert_eq!(literal("it's \\' \n$"), "E'it''s \\\\'' \n$'");
    }
}
