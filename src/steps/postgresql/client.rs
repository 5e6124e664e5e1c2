//! How libpq's programs are called: everything by environment, no secret and no name in their arguments.

use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use nix::unistd::User;
use tempfile::NamedTempFile;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::config::Postgresql;
use crate::process;
use crate::steps::secret;
use crate::units::render::credential;

/// The programs of one server.
pub(in crate::steps) struct Client<'a> {
    pub config: &'a Postgresql,
    /// libpq's password file; removed with this value.
    passfile: Option<NamedTempFile>,
    /// The programs run as the configured OS user, and not as this process.
    as_os_user: bool,
}

impl<'a> Client<'a> {
    pub fn new(config: &'a Postgresql) -> Result<Self> {
        let Some(source) = &config.password else { return Ok(Self { config, passfile: None, as_os_user: false }) };
        let password = secret::read(source, credential::POSTGRESQL)?;
        let mut file = NamedTempFile::new().context("cannot make a temporary file")?;
        writeln!(file, "*:*:*:*:{}", password.replace('\\', "\\\\").replace(':', "\\:"))?;
        Ok(Self { config, passfile: Some(file), as_os_user: false })
    }

    /// For root: on a socket without a password the server goes by the process' user.
    pub fn dropping_to_os_user(mut self) -> Self {
        self.as_os_user = self.passfile.is_none();
        self
    }

    /// One of libpq's programs, about to talk to `database`.
    pub fn command(&self, program: &str, database: &str) -> Command {
        let mut command = self.command_offline(program);
        command
            .env("PGHOST", &self.config.host)
            .env("PGPORT", self.config.port.to_string())
            .env("PGUSER", &self.config.user)
            .env("PGDATABASE", database)
            .env("PGAPPNAME", "gitlab-backup")
            .env("PGCONNECT_TIMEOUT", "20")
            .arg("--no-password");
        if let Some(file) = &self.passfile {
            command.env("PGPASSFILE", file.path());
        }
        command
    }

    /// One of libpq's programs that needs no server.
    pub fn command_offline(&self, program: &str) -> Command {
        let user = self.as_os_user.then(|| User::from_name(&self.config.os_user).ok().flatten()).flatten();
        let mut command = Command::new(path_of(program, Some(self.config)));
        if let Some(user) = user {
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// psql, as a program and not as a person uses it.
    pub fn psql(&self, database: &str) -> Command {
        let mut command = self.command("psql", database);
        command.args(["--no-psqlrc", "--no-align", "--tuples-only", "--quiet", "--set=ON_ERROR_STOP=1"]);
        command
    }

    /// The rows of all statements in `sql`, a line each. The first statement that fails ends it. What stands in it may be a user's name for
    /// something, so it comes by stdin.
    pub async fn query(&self, database: &str, sql: &str) -> Result<Vec<String>> {
        let mut psql = self.psql(database);
        let child = psql.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.context("cannot run psql: is it installed?")?;
        let mut stdin = child.stdin.take().context("psql has no stdin")?;
        // psql may end before it has read all: then it says why.
        let (_, output) = tokio::join!(
            async {
                let _ = stdin.write_all(sql.as_bytes()).await;
                drop(stdin);
            },
            child.wait_with_output()
        );
        let output = output.context("cannot wait for psql")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}: {}", self.place(database), said.trim());
        Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
    }

    /// For messages.
    pub fn place(&self, database: &str) -> String {
        format!("PostgreSQL at {} port {}, database '{database}' as '{}'", self.config.host, self.config.port, self.config.user)
    }

    /// What to back up: the configured databases, or all but the templates.
    pub async fn databases(&self) -> Result<Vec<String>> {
        if let Some(names) = &self.config.databases {
            return Ok(names.clone());
        }
        let sql = "SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY datname";
        self.query("postgres", sql).await
    }
}

/// Where Debian keeps the programs of each version.
pub(in crate::steps) const DEBIAN: &str = "/usr/lib/postgresql";

/// Where one of libpq's programs is: as configured, or on `PATH`.
pub(in crate::steps) fn path_of(program: &str, config: Option<&Postgresql>) -> PathBuf {
    match config.and_then(|config| config.bin_dir.as_ref()) {
        Some(directory) => directory.join(program),
        None => behind_wrapper(program).unwrap_or_else(|| PathBuf::from(program)),
    }
}

/// What Debian's `pg_wrapper`, a Perl script, would run: the newest. Its own start costs more than a query, several times in the window.
fn behind_wrapper(program: &str) -> Option<PathBuf> {
    let found = process::find(program, process::search_path())?;
    if found.canonicalize().ok()?.file_name()? != "pg_wrapper" {
        return None;
    }
    process::find(program, versions(DEBIAN, "").into_iter().rev())
}

/// Where distributions keep several versions, `PARENT/PREFIX15/bin`; the newest last.
pub(in crate::steps) fn versions(parent: &str, prefix: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
    let version = |name: &str| name.strip_prefix(prefix)?.parse::<u32>().ok();
    let mut found: Vec<_> =
        entries.filter_map(|entry| Some((version(&entry.file_name().to_string_lossy())?, entry.path().join("bin")))).collect();
    found.sort();
    found.into_iter().map(|(_, directory)| directory).collect()
}

/// The major version in what a program of PostgreSQL's answers to `--version`.
pub(in crate::steps) fn major(text: &str) -> Option<u32> {
    text.split_whitespace().find_map(|word| word.split('.').next()?.parse().ok())
}

/// A name in SQL.
pub(in crate::steps) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A string in SQL, whatever `standard_conforming_strings` says.
pub(in crate::steps) fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}
