//! PostgreSQL's own programs at work on a server, and the proof that those which are here go
//! together with it.

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

/// What newer programs set first of all, and the first server that knows it. An older one refuses,
/// and loses nothing by it.
const NEWER: [(&str, u32); 1] = [("transaction_timeout", 17)];

/// Runs pg_restore as `client`'s role, on a server of this major version.
///
/// # Errors
/// With what it says, if anything fails that is not a setting which only newer servers have.
pub(super) async fn restore(
    client: &Client,
    server: u32,
    name: &str,
    dump: &Path,
    more: &[impl AsRef<OsStr>],
) -> Result<()> {
    let (program, version) = reader(client, server, dump).await?;
    let is_newer = version > server;
    let mut command = client.command_at(program, name, server)?;
    match is_newer {
        // Several at once would talk all at once, and what they say counts.
        true => command.arg("--jobs=1"),
        false => command.arg("--exit-on-error").arg(format!("--jobs={}", client.login.config.jobs)),
    };
    command.args(more).arg(format!("--dbname={}", dbname(name))).arg(dump);
    let ended = process::to_its_end(&mut command).await?;
    let only_settings = is_newer && ended.status.code() == Some(1) && only_settings(&ended, server);
    ensure!(
        ended.status.success() || only_settings,
        "pg_restore of {} into {}: {}",
        dump.display(),
        client.login.place(name),
        ended.said
    );
    Ok(())
}

/// The pg_restore that goes with the server; one that can read the dump, if that one cannot: a
/// newer pg_dump may have written it. And its version.
async fn reader(client: &Client, server: u32, dump: &Path) -> Result<(PathBuf, u32)> {
    let own = client.program("pg_restore", server);
    let mut first = None;
    for program in [own].into_iter().chain(all_of("pg_restore")) {
        match process::to_its_end(client.run(program.clone()).arg("--list").arg(dump)).await {
            Ok(ended) if ended.status.success() => {
                let version = told(&program, client.run(program.clone())).await?;
                return Ok((program, version));
            }
            Ok(ended) => {
                first.get_or_insert_with(|| anyhow!("{}: {}", program.display(), ended.said));
            }
            Err(error) => drop(first.get_or_insert(error)),
        }
    }
    Err(first.unwrap_or_else(|| anyhow!("there is no pg_restore")))
}

/// Whether all that went wrong is that this server does not know a setting of a newer one. The
/// messages are the server's, in its language; the statements are pg_restore's.
fn only_settings(ended: &Ended, server: u32) -> bool {
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

/// The major version of one of the programs that go with a server of this one.
///
/// # Errors
/// If it is not installed.
pub(super) async fn version(client: &Client, program: &str, server: u32) -> Result<u32> {
    told(Path::new(program), client.command_for(program, server)).await
}

async fn told(program: &Path, mut command: Command) -> Result<u32> {
    let output = command.arg("--version").output().await;
    let output = output.map_err(|error| text::cannot_run(program, &error))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    major(&text).with_context(|| {
        format!("{} does not tell its version: '{}'", program.display(), text.trim())
    })
}

/// Proves that what pg_dump writes here pg_restore can load: with a dump that has nothing in it,
/// loaded where the role may enter. The version.
///
/// # Errors
/// With what either refuses.
pub(super) async fn prove(client: &Client, server: u32) -> Result<u32> {
    let place = client.connect_anywhere().await?.1;
    let directory = tempfile::tempdir().context("cannot make a temporary directory")?;
    let dump = directory.path().join("dump");
    if let Some(account) = client.login.account {
        Directory::open(directory.path())?.give(account.uid, account.gid)?;
    }
    let mut command = client.command("pg_dump", &place, server)?;
    command
        .args(["--format=directory", "--schema-only", "--exclude-schema=*", "--file"])
        .arg(&dump);
    let ended = process::to_its_end(&mut command).await?;
    ensure!(ended.status.success(), "pg_dump of {}: {}", client.login.place(&place), ended.said);
    // Of what belongs to a database and to no schema nothing is made again.
    restore(client, server, &place, &dump, &["--use-list=/dev/null"]).await.with_context(|| {
        format!("a run could not be restored by the programs that are here: install PostgreSQL's client programs of version {server}, or name them by [postgresql] bin-dir")
    })?;
    version(client, "pg_dump", server).await
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;

    fn settings(said: &str, server: u32, is_cut: bool) -> bool {
        only_settings(
            &Ended { status: ExitStatus::from_raw(256), said: said.to_owned(), is_cut },
            server,
        )
    }

    #[test]
    fn only_settings_of_newer_servers_are_not_missed() {
        let one = "pg_restore: error: could not execute query: FEHLER:  unbekannter Parameter\nCommand was: SET transaction_timeout = 0;\n\n";
        let end = "pg_restore: warning: errors ignored on restore: 2";
        assert!(settings(&format!("{one}{one}{end}"), 15, false));
        assert!(!settings(&format!("{one}{end}"), 17, false), "it knows that one");
        assert!(!settings(&format!("{one}{end}"), 15, true), "not all was heard");
        for other in [
            "pg_restore: error: could not execute query: ERROR:  no\nCommand was: SET default_tablespace = fast;\n\n",
            "pg_restore: error: COPY failed for table \"a\": ERROR:  x\nCommand was: SET transaction_timeout = 0;\n",
            "pg_restore: error: could not execute query: ERROR:  x\nCommand was: SET transaction_timeout = 0;\nCommand was: CREATE TABLE a ();\n",
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
