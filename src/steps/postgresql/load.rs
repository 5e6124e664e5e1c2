//! A dump becomes a database: made as it was, filled by pg_restore. Used for restores and for drills, which have a server of their own.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};

use crate::runs::Database;

use super::client::{Client, identifier, literal};

/// Where statements run that are about databases. Not `postgres`: that one may be restored itself.
pub(in crate::steps) const MAINTENANCE: &str = "template1";

/// Makes the empty database `name` with the encoding, the locale and the owner of `like`.
///
/// # Errors
/// If it is there already, or the server has no such role or locale.
pub(in crate::steps) async fn create(client: &Client<'_>, name: &str, like: &Database) -> Result<()> {
    let mut sql = format!("CREATE DATABASE {} TEMPLATE template0", identifier(name));
    if !like.owner.is_empty() {
        sql.push_str(&format!(" OWNER {}", identifier(&like.owner)));
    }
    // Empty in runs that did not record it: then the server's own default.
    if !like.encoding.is_empty() {
        let (encoding, collate, ctype) = (literal(&like.encoding), literal(&like.collate), literal(&like.ctype));
        sql.push_str(&format!(" ENCODING {encoding} LC_COLLATE {collate} LC_CTYPE {ctype}"));
    }
    match (like.provider.as_deref(), &like.locale) {
        (Some("i"), Some(locale)) => sql.push_str(&format!(" LOCALE_PROVIDER icu ICU_LOCALE {}", literal(locale))),
        (Some("b"), Some(locale)) => sql.push_str(&format!(" LOCALE_PROVIDER builtin BUILTIN_LOCALE {}", literal(locale))),
        _ => {}
    }
    client.query(MAINTENANCE, &format!("{sql};\n")).await.map(drop).with_context(|| format!("cannot make database '{name}'"))
}

/// Fills the empty database `name` from the directory-format dump at `dump`, with so many jobs as are configured and `more` options.
///
/// # Errors
/// With the first statement that fails.
pub(in crate::steps) async fn fill(client: &Client<'_>, name: &str, dump: &Path, more: &[&str]) -> Result<()> {
    let mut command = client.command("pg_restore", name);
    command.args(more).arg("--exit-on-error").arg(format!("--jobs={}", client.config.jobs));
    // libpq takes a name with '=' for more than a name.
    command.arg(format!("--dbname=dbname='{}'", name.replace('\\', "\\\\").replace('\'', "\\'"))).arg(dump);
    let output = command.stdout(Stdio::null()).output().await.context("cannot run pg_restore: is it installed?")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "pg_restore of {} into {}: {}", dump.display(), client.place(name), said.trim());
    Ok(())
}

/// Sets the sequences of the database `name` to what they were at the capture.
pub(in crate::steps) async fn sequences(client: &Client<'_>, name: &str, like: &Database) -> Result<()> {
    let set = |(sequence, value): (&String, &i64)| format!("SELECT setval({}, {value});\n", literal(sequence));
    let sql: String = like.sequences.iter().map(set).collect();
    client.query(name, &sql).await.map(drop).with_context(|| format!("cannot set the sequences of {}", client.place(name)))
}

/// The tablespaces of `globals` (what `pg_dumpall --globals-only` wrote), quoted where they have to be.
pub(in crate::steps) fn tablespaces(globals: &str) -> Vec<&str> {
    globals.lines().filter_map(|line| line.strip_prefix("CREATE TABLESPACE ")?.split(" OWNER ").next()).collect()
}

/// Those of them that the server does not have. They are not made: where they should be on this host, only its admin knows.
pub(in crate::steps) async fn missing_tablespaces<'a>(client: &Client<'_>, globals: &'a str) -> Result<Vec<&'a str>> {
    let there = client.query(MAINTENANCE, "SELECT quote_ident(spcname) FROM pg_tablespace;\n").await?;
    Ok(tablespaces(globals).into_iter().filter(|name| !there.iter().any(|other| other == name)).collect())
}

/// Makes those roles of `globals` that the server does not have; what it has stays as it is, its passwords above all. Returns the roles made.
pub(in crate::steps) async fn roles(client: &Client<'_>, globals: &str) -> Result<Vec<String>> {
    let there = client.query(MAINTENANCE, "SELECT quote_ident(rolname) FROM pg_roles;\n").await?;
    let (made, sql) = missing(globals, &there);
    if !made.is_empty() {
        client.query(MAINTENANCE, &sql).await.context("cannot make the roles of the run")?;
    }
    Ok(made)
}

/// The roles of `globals` that are not `there`, and the statements that are about them.
fn missing(globals: &str, there: &[String]) -> (Vec<String>, String) {
    let role = |line: &str| Some(line.strip_prefix("CREATE ROLE ")?.strip_suffix(';')?.to_owned());
    let made: Vec<String> = globals.lines().filter_map(role).filter(|role| !there.contains(role)).collect();
    // pg_dumpall writes a statement a line.
    let about = |line: &&str| {
        made.iter().any(|role| {
            role_of(line, "CREATE ROLE ", role, ";") || role_of(line, "ALTER ROLE ", role, " ") || {
                let granted = line.strip_prefix("GRANT ").and_then(|rest| rest.split_once(" TO "));
                granted.is_some_and(|(group, member)| group == role || role_of(member, "", role, " ") || role_of(member, "", role, ";"))
            }
        })
    };
    let sql = globals.lines().filter(about).map(|line| format!("{line}\n")).collect();
    (made, sql)
}

fn role_of(line: &str, before: &str, role: &str, after: &str) -> bool {
    line.strip_prefix(before).and_then(|rest| rest.strip_prefix(role)).is_some_and(|rest| rest.starts_with(after))
}

/// Settings and privileges of the database itself (`ALTER DATABASE … SET`, `GRANT … ON DATABASE`), as statements. They name the database, so they
/// are for the time when it has its name.
pub(in crate::steps) async fn properties(client: &Client<'_>, dump: &Path) -> Result<String> {
    let pg_restore = |words: &[&str]| {
        let mut command = client.command_offline("pg_restore");
        command.arg("--create").args(words).arg(dump);
        command
    };
    let succeed = async |mut command: tokio::process::Command| {
        let output = command.output().await.context("cannot run pg_restore: is it installed?")?;
        ensure!(output.status.success(), "pg_restore of {}: {}", dump.display(), String::from_utf8_lossy(&output.stderr).trim());
        anyhow::Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let list = succeed(pg_restore(&["--list"])).await?;
    let wanted: String = list
        .lines()
        .filter(|line| line.contains(" DATABASE PROPERTIES ") || line.contains(" ACL - DATABASE "))
        .map(|line| format!("{line}\n"))
        .collect();
    if wanted.is_empty() {
        return Ok(String::new());
    }
    let file = tempfile::NamedTempFile::new().context("cannot make a temporary file")?;
    std::fs::write(file.path(), wanted)?;
    let path = file.path().to_string_lossy();
    let sql = succeed(pg_restore(&["--use-list", &*path, "--file", "-"])).await?;
    // With --create, this one is there whatever the list says.
    Ok(sql.lines().filter(|line| !line.starts_with("CREATE DATABASE ")).map(|line| format!("{line}\n")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_missing_is_made() {
        let globals = "SET x;\nCREATE ROLE git;\nALTER ROLE git WITH LOGIN PASSWORD 'a';\nCREATE ROLE \"od d\";\nALTER ROLE \"od d\" WITH LOGIN;\n\
            CREATE ROLE git2;\nALTER ROLE git2 WITH LOGIN;\nGRANT git TO \"od d\" GRANTED BY postgres;\nGRANT git TO postgres;\n";
        let (made, sql) = missing(globals, &["postgres".to_owned(), "git".to_owned(), "git2".to_owned()]);
        assert_eq!(made, ["\"od d\""]);
        assert_eq!(sql, "CREATE ROLE \"od d\";\nALTER ROLE \"od d\" WITH LOGIN;\nGRANT git TO \"od d\" GRANTED BY postgres;\n");
        let (made, sql) = missing(globals, &["\"od d\"".to_owned(), "git".to_owned(), "git2".to_owned()]);
        assert!(made.is_empty() && sql.is_empty(), "{sql}");
    }
}
