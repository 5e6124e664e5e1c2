//! The client programs, told where to connect by libpq's environment variables only: what is in the environment is neither
//! visible to other users, as argv is, nor parsed as a connection string, as a database's name in argv would be.

use std::ffi::OsStr;
use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use tempfile::NamedTempFile;
use tokio::process::Command;

use crate::config::{Config, Postgresql};
use crate::steps::{process, secret};
use crate::units::render::credential;

/// Would redirect or change a connection that the configuration describes completely.
const FOREIGN: [&str; 6] = ["PGSERVICE", "PGSERVICEFILE", "PGHOSTADDR", "PGPASSWORD", "PGDATABASE", "PGCLIENTENCODING"];

/// How to reach the server.
pub struct Client<'a> {
    /// `[postgresql]`
    pub postgresql: &'a Postgresql,
    /// Removed when the client goes.
    password_file: Option<NamedTempFile>,
}

impl<'a> Client<'a> {
    /// Reads the password, if there is one.
    pub fn new(config: &'a Config) -> Result<Self> {
        let postgresql = config.postgresql.as_ref().context("[postgresql] is not enabled")?;
        let password_file = match &postgresql.password {
            None => None,
            Some(source) => {
                let password = secret::read(source, credential::POSTGRESQL)?;
                // A tempfile is 0600, which libpq insists on.
                let mut file = NamedTempFile::new().context("cannot make a password file")?;
                file.write_all(password_line(&password)?.as_bytes()).context("cannot write the password file")?;
                Some(file)
            }
        };
        Ok(Self { postgresql, password_file })
    }

    /// Who connects where, for messages.
    pub fn place(&self) -> String {
        let Postgresql { host, port, user, .. } = self.postgresql;
        format!("PostgreSQL at {host} port {port} as {user}")
    }

    /// A client program, in `bin-dir` or on `PATH`.
    pub fn find(&self, program: &str) -> Result<PathBuf> {
        let found = match &self.postgresql.bin_dir {
            Some(directory) => process::find(program, [directory.clone()]),
            None => process::find(program, process::search_path()),
        };
        found.with_context(|| match &self.postgresql.bin_dir {
            Some(directory) => format!("{} has no {program}: correct bin-dir in [postgresql]", directory.display()),
            None => format!("{program} is not on PATH: install the PostgreSQL client programs or set bin-dir in [postgresql]"),
        })
    }

    /// A client program, about to connect to `database`.
    pub fn command(&self, program: &str, database: Option<&str>) -> Result<Command> {
        let mut command = Command::new(self.find(program)?);
        for name in FOREIGN {
            command.env_remove(name);
        }
        let Postgresql { host, port, user, .. } = self.postgresql;
        command.env("PGHOST", host).env("PGPORT", port.to_string()).env("PGUSER", user);
        command.env("PGAPPNAME", "gitlab-backup").env("PGCONNECT_TIMEOUT", "15").env("LC_MESSAGES", "C");
        if let Some(file) = &self.password_file {
            command.env("PGPASSFILE", file.path());
        }
        if let Some(database) = database {
            command.env("PGDATABASE", database);
        }
        // The sandbox may hide the home directory that the current one is in.
        command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        Ok(command)
    }

    /// psql that reads SQL from its standard input and stops at the first error; one row a line.
    pub fn psql(&self, database: &str) -> Result<Command> {
        let mut command = self.command("psql", Some(database))?;
        command.args(["-X", "-A", "-t", "-q", "-w", "-v", "ON_ERROR_STOP=1"]).env("PGCLIENTENCODING", "UTF8");
        Ok(command)
    }

    /// The answer to `sql`.
    async fn ask(&self, database: &str, options: &[&str], sql: &str) -> Result<String> {
        let mut command = self.psql(database)?;
        command.args(options).args(["-c", sql]);
        let output = command.output().await.context("cannot run psql")?;
        ensure!(
            output.status.success(),
            "cannot query database {database:?} of {}: {}\ncheck that the server runs and that this role may connect from here \
             (pg_hba.conf; peer authentication needs os-user to match)",
            self.place(),
            process::tail(&output.stderr)
        );
        String::from_utf8(output.stdout).context("psql answered with something else than UTF-8")
    }

    /// The answer to `sql`, one row a line.
    pub async fn query(&self, database: &str, sql: &str) -> Result<String> {
        Ok(self.ask(database, &[], sql).await?.trim_end().to_owned())
    }

    /// The database to ask what concerns the whole server.
    pub fn maintenance(&self) -> &str {
        self.postgresql.databases.as_ref().and_then(|databases| databases.first()).map_or("postgres", String::as_str)
    }

    /// The databases to save: those configured, or all but the templates.
    pub async fn databases(&self) -> Result<Vec<String>> {
        if let Some(databases) = &self.postgresql.databases {
            return Ok(databases.clone());
        }
        // NUL between the rows: a name may hold a newline.
        let sql = "SELECT datname FROM pg_catalog.pg_database WHERE datallowconn AND NOT datistemplate ORDER BY datname";
        let answer = self.ask(self.maintenance(), &["-0"], sql).await?;
        let names: Vec<String> = answer.split('\0').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        ensure!(!names.is_empty(), "{} has no database to save", self.place());
        Ok(names)
    }

    /// What `program --version` says, and its major version.
    pub async fn version(&self, program: &str) -> Result<(String, u32)> {
        let mut command = self.command(program, None)?;
        let output = command.arg("--version").output().await.with_context(|| format!("cannot run {program}"))?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        ensure!(output.status.success(), "{program} --version failed: {}", process::tail(&output.stderr));
        let major = major(&text).with_context(|| format!("cannot tell the version of {program} from {text:?}"))?;
        Ok((text, major))
    }
}

/// The line of a password file that fits every connection (libpq, "The Password File").
fn password_line(password: &str) -> Result<String> {
    if password.contains(['\n', '\r', '\0']) {
        bail!("the PostgreSQL password has more than one line");
    }
    Ok(format!("*:*:*:*:{}\n", password.replace('\\', "\\\\").replace(':', "\\:")))
}

/// `15` of `pg_dump (PostgreSQL) 15.8 (Debian 15.8-0+deb12u1)`.
fn major(version: &str) -> Option<u32> {
    let number = version.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    number.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// A database's name as the name of its dump: everything but `[A-Za-z0-9_.-]` percent-encoded, and no name hidden or special.
pub fn directory_name(database: &str) -> String {
    let mut name = String::new();
    for (index, byte) in database.bytes().enumerate() {
        let plain = byte.is_ascii_alphanumeric() || byte == b'_' || (matches!(byte, b'.' | b'-') && index > 0);
        match plain {
            true => name.push(char::from(byte)),
            false => name.push_str(&format!("%{byte:02X}")),
        }
    }
    name
}

/// `--database=`, which unlike `PGDATABASE` would be parsed as a connection string: none where that would go wrong.
pub fn database_option(database: &str) -> Option<String> {
    (!database.contains('=') && !database.contains("://")).then(|| format!("--database={database}"))
}

/// Lets a program's arguments be given as anything that a path or a string is.
pub fn option(name: &str, value: impl AsRef<OsStr>) -> std::ffi::OsString {
    let mut option = std::ffi::OsString::from(name);
    option.push(value);
    option
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn directory_names_are_plain_and_tell_databases_apart() {
        assert_eq!(directory_name("gitlabhq_production"), "gitlabhq_production");
        assert_eq!(directory_name("a b"), "a%20b");
        assert_eq!(directory_name("a%20b"), "a%2520b");
        assert_eq!(directory_name("../x"), "%2E.%2Fx");
        assert_eq!(directory_name("-f"), "%2Df");
        assert_eq!(directory_name("ü"), "%C3%BC");
    }

    #[test]
    fn passwords_are_escaped() {
        assert_eq!(password_line(r"a:b\c").unwrap(), "*:*:*:*:a\\:b\\\\c\n");
        assert!(password_line("a\nb").is_err());
    }

    #[test]
    fn versions() {
        assert_eq!(major("pg_dump (PostgreSQL) 15.8 (Debian 15.8-0+deb12u1)"), Some(15));
        assert_eq!(major("pg_dump (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(major("pg_dump"), None);
    }

    #[test]
    fn connection_strings_never_reach_argv() {
        assert_eq!(database_option("dbname=x"), None);
        assert_eq!(database_option("postgresql://x"), None);
        assert_eq!(database_option("gitlab").as_deref(), Some("--database=gitlab"));
    }
}
