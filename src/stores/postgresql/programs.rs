//! Runs pg_restore, and checks that the installed programs of PostgreSQL work with the server.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};
use tokio::process::Command;

use crate::host::beneath::Directory;
use crate::host::process::{self, Ended};
use crate::host::text;

use super::client::Client;
use super::quoting::dbname;
use super::versions::{all_of, major};

/// Settings that newer programs set at the start, and the first version of the server that has the
/// setting. An older server refuses the statement, which does no harm.
const NEWER: [(&str, u32); 1] = [("transaction_timeout", 17)];

/// Runs pg_restore as `client`'s role. `server` is the server's major version, `name` the database,
/// and `more` are additional arguments.
///
/// # Errors
/// If a statement fails, except one for a setting that only newer servers have. The error quotes
/// pg_restore's messages.
pub(super) async fn restore(
    client: &Client,
    server: u32,
    name: &str,
    dump: &Path,
    more: &[impl AsRef<OsStr>],
) -> Result<()> {
    let (program, version) = find_pg_restore(client, server, dump).await?;
    let is_newer = version > server;
    let mut command = client.command_at(program, name, server)?;
    match is_newer {
        // The messages of several jobs would be mixed up, and `is_only_settings` could not parse
        // them.
        true => command.arg("--jobs=1"),
        false => command.arg("--exit-on-error").arg(format!("--jobs={}", client.login.config.jobs)),
    };
    command.args(more).arg(format!("--dbname={}", dbname(name))).arg(dump);
    let ended = process::to_its_end(&mut command).await?;
    let only_settings =
        is_newer && ended.status.code() == Some(1) && is_only_settings(&ended, server);
    ensure!(
        ended.status.success() || only_settings,
        "pg_restore of {} into {}: {}",
        dump.display(),
        client.login.describe(name),
        ended.said
    );
    Ok(())
}

/// Finds a pg_restore that can read the dump, and returns its path and version. Prefers the one of
/// the server's version, but that may be too old: a newer pg_dump may have written the dump.
async fn find_pg_restore(client: &Client, server: u32, dump: &Path) -> Result<(PathBuf, u32)> {
    let own = client.program("pg_restore", server);
    let mut first = None;
    for program in [own].into_iter().chain(all_of("pg_restore")) {
        match process::to_its_end(client.bare_command(program.clone()).arg("--list").arg(dump))
            .await
        {
            Ok(ended) if ended.status.success() => {
                let version = read_version(&program, client.bare_command(program.clone())).await?;
                return Ok((program, version));
            }
            Ok(ended) => {
                first.get_or_insert_with(|| anyhow!("{}: {}", program.display(), ended.said));
            }
            Err(error) => drop(first.get_or_insert(error)),
        }
    }
    Err(first.unwrap_or_else(|| anyhow!("pg_restore is not installed")))
}

/// Whether pg_restore's only errors are that this server does not have a setting of a newer one.
/// This is decided by the statements that pg_restore quotes: the server's messages are in its own
/// language.
fn is_only_settings(ended: &Ended, server: u32) -> bool {
    let unknown = |statement: &str| {
        let name = statement
            .strip_prefix("SET ")
            .and_then(|rest| rest.split_once(" = "))
            .map(|(name, _)| name);
        NEWER.iter().any(|(setting, since)| name == Some(*setting) && *since > server)
    };
    let is_one = |block: &str| {
        let lines: Vec<&str> = block
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with("pg_restore: warning: "))
            .collect();
        match lines.as_slice() {
            [message, statement] => {
                message.starts_with("could not execute query: ")
                    && statement.strip_prefix("Command was: ").is_some_and(unknown)
            }
            _ => false,
        }
    };
    let mut blocks = ended.said.split("pg_restore: error: ");
    let before = blocks.next().unwrap_or_default();
    !ended.is_cut && before.is_empty() && blocks.all(is_one)
}

/// Returns the major version of the program that is used with a server of version `server`.
///
/// # Errors
/// If it is not installed.
pub(super) async fn version(client: &Client, program: &str, server: u32) -> Result<u32> {
    read_version(Path::new(program), client.command_for(program, server)).await
}

async fn read_version(program: &Path, mut command: Command) -> Result<u32> {
    let output = command.arg("--version").output().await;
    let output = output.map_err(|error| text::cannot_run(program, &error))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    major(&text).with_context(|| {
        format!("cannot find the version in the output of {}: '{}'", program.display(), text.trim())
    })
}

/// Checks that pg_restore can load what pg_dump writes: dumps and restores an empty dump in a
/// database of the server, which changes nothing. Returns the version of pg_dump.
///
/// # Errors
/// If pg_dump or pg_restore fails.
pub(super) async fn check_round_trip(client: &Client, server: u32) -> Result<u32> {
    let place = client.connect_anywhere().await?.1;
    let directory = tempfile::tempdir().context("cannot create a temporary directory")?;
    let dump = directory.path().join("dump");
    if let Some(account) = client.login.account {
        Directory::open(directory.path())?.give(account.uid, account.gid)?;
    }
    let mut command = client.command("pg_dump", &place, server)?;
    command
        .args(["--format=directory", "--schema-only", "--exclude-schema=*", "--file"])
        .arg(&dump);
    let ended = process::to_its_end(&mut command).await?;
    ensure!(ended.status.success(), "pg_dump of {}: {}", client.login.describe(&place), ended.said);
    // An empty list: objects that belong to no schema are in the dump, and must not be created.
    restore(client, server, &place, &dump, &["--use-list=/dev/null"]).await.with_context(|| {
        format!(
            "a run could not be restored by the programs that are here: install PostgreSQL's \
                 client programs of version {server}, or name them by [postgresql] bin-dir"
        )
    })?;
    version(client, "pg_dump", server).await
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;

    fn settings(said: &str, server: u32, is_cut: bool) -> bool {
        is_only_settings(
            &Ended { status: ExitStatus::from_raw(256), said: said.to_owned(), is_cut },
            server,
        )
    }

    #[test]
    fn only_errors_about_newer_settings_are_ignored() {
        let one = "pg_restore: error: could not execute query: FEHLER:  unbekannter \
                   Parameter\nCommand was: SET transaction_timeout = 0;\n\n";
        let end = "pg_restore: warning: errors ignored on restore: 2";
        assert!(settings(&format!("{one}{one}{end}"), 15, false));
        assert!(!settings(&format!("{one}{end}"), 17, false), "this server has the setting");
        assert!(!settings(&format!("{one}{end}"), 15, true), "the output is cut");
        for other in [
            "pg_restore: error: could not execute query: ERROR:  no\nCommand was: SET \
             default_tablespace = fast;\n\n",
            "pg_restore: error: COPY failed for table \"a\": ERROR:  x\nCommand was: SET \
             transaction_timeout = 0;\n",
            "pg_restore: error: could not execute query: ERROR:  x\nCommand was: SET \
             transaction_timeout = 0;\nCommand was: CREATE TABLE a ();\n",
            "something else\n",
        ] {
            assert!(!settings(&format!("{other}{one}{end}"), 15, false), "{other}");
            assert!(
                !settings(&format!("{one}{other}{end}"), 15, false) || other == "something else\n",
                "{other}"
            );
        }
    }
}
