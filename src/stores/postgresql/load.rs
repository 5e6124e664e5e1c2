//! A dump becomes a database: made as it was, filled by pg_restore. Used for restores and for
//! drills, which have a server of their own.
//!
//! A superuser is lent to nobody: pg_restore is [`sandbox`]'s role, which owns all that it makes.
//! What only a superuser can make, and what is about what is there already, is made by the
//! superuser's session, from the lists below: nothing in it is an expression, so nothing runs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use tempfile::NamedTempFile;

use crate::accounts;
use crate::runs::Database;

use super::client::Client;
use super::programs::restore;
use super::quoting::{identifier, literal};
use super::sandbox;
use super::session::Session;
use super::toc::{self, Entry, Section};

/// Made by the superuser where they stand: what comes later may need them.
const PRIVILEGED: [&str; 11] = [
    "ACCESS METHOD",
    "CAST",
    "EXTENSION",
    "FOREIGN DATA WRAPPER",
    "OPERATOR CLASS",
    "OPERATOR FAMILY",
    "PROCEDURAL LANGUAGE",
    "SERVER",
    "TEXT SEARCH PARSER",
    "TEXT SEARCH TEMPLATE",
    "TRANSFORM",
];
/// Made by the superuser when everything else is there and has its owner. Without user mappings no
/// code can reach another server as it is loaded.
const LAST: [&str; 10] = [
    "ACL",
    "ACL LANGUAGE",
    "COMMENT",
    "DEFAULT ACL",
    "EVENT TRIGGER",
    "PUBLICATION TABLES IN SCHEMA",
    "SECURITY LABEL",
    "SUBSCRIPTION",
    "SUBSCRIPTION TABLE",
    "USER MAPPING",
];
/// Belong to the dump, and not to what is in it: pg_restore knows when it needs them.
const SPECIAL: [&str; 5] =
    ["ENCODING", "STDSTRINGS", "SEARCHPATH", "DATABASE", "DATABASE PROPERTIES"];
/// What has an owner, and is named by its kind and name.
const NAMED: [&str; 19] = [
    "COLLATION",
    "CONVERSION",
    "DOMAIN",
    "EVENT TRIGGER",
    "FOREIGN DATA WRAPPER",
    "FOREIGN TABLE",
    "MATERIALIZED VIEW",
    "PROCEDURAL LANGUAGE",
    "PUBLICATION",
    "SCHEMA",
    "SEQUENCE",
    "SERVER",
    "STATISTICS",
    "SUBSCRIPTION",
    "TABLE",
    "TEXT SEARCH CONFIGURATION",
    "TEXT SEARCH DICTIONARY",
    "TYPE",
    "VIEW",
];
/// What has an owner, and is named as in the statement that would drop it: with its arguments.
const CALLED: [&str; 6] =
    ["AGGREGATE", "FUNCTION", "OPERATOR", "OPERATOR CLASS", "OPERATOR FAMILY", "PROCEDURE"];
/// Large objects, one by one and, since PostgreSQL 17, many in one entry.
const LARGE_OBJECT: &str = "BLOB";
const LARGE_OBJECTS: &str = "BLOB METADATA";

/// As whom dumps are loaded.
pub(crate) struct Loader<'a> {
    /// The role that makes databases.
    pub admin: &'a Client,
    /// A session of it.
    pub session: &'a Session,
    /// The role without rights; none where the one that makes databases has none that could be
    /// lent.
    pub sandbox: Option<&'a Client>,
}

/// Where a load is. What is in the database is the filler's still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// Extensions were just made, with what they bring, and nothing of the dump's data is there. It
    /// may come more than once, or not at all.
    Extensions,
    /// Everything is there.
    Filled,
}

impl Loader<'_> {
    /// Makes the empty database `name` with the encoding and the locale of `like`, for whom it is
    /// filled by.
    ///
    /// # Errors
    /// If it is there already, or the server has no such locale.
    pub async fn create(&self, name: &str, like: &Database) -> Result<()> {
        let mut sql = format!("CREATE DATABASE {} TEMPLATE template0", identifier(name));
        if self.sandbox.is_some() {
            // Everybody may enter a new database: whoever did before it is closed would still be
            // there when it is handed over.
            sql.push_str(" ALLOW_CONNECTIONS false");
        } else if !like.owner.is_empty() {
            write!(sql, " OWNER {}", identifier(&like.owner))?;
        }
        // Empty in runs that did not record it: then the server's own default.
        if !like.encoding.is_empty() {
            let (encoding, collate, ctype) =
                (literal(&like.encoding), literal(&like.collate), literal(&like.ctype));
            write!(sql, " ENCODING {encoding} LC_COLLATE {collate} LC_CTYPE {ctype}")?;
        }
        match (like.provider.as_deref(), &like.locale) {
            (Some("i"), Some(locale)) => {
                write!(sql, " LOCALE_PROVIDER icu ICU_LOCALE {}", literal(locale))?
            }
            (Some("b"), Some(locale)) => {
                write!(sql, " LOCALE_PROVIDER builtin BUILTIN_LOCALE {}", literal(locale))?
            }
            _ => {}
        }
        // That it is missing is told where the restore is planned.
        if let Some(tablespace) = &like.tablespace {
            let there: Vec<String> = self
                .session
                .column("SELECT spcname::text FROM pg_catalog.pg_tablespace WHERE spcname = $1::text::name", &[tablespace])
                .await?;
            if !there.is_empty() {
                write!(sql, " TABLESPACE {}", identifier(tablespace))?;
            }
        }
        self.session
            .run_with_all(&sql)
            .await
            .with_context(|| format!("cannot make database '{name}'"))?;
        if self.sandbox.is_some() { sandbox::open_alone(self.session, name).await } else { Ok(()) }
    }

    /// Fills the empty database `name` from the directory-format dump at `dump`, with `more`
    /// options for pg_restore, and gives what is in it to whom it belongs; on the way, while it is
    /// still the filler's, `meanwhile` is done at each moment. The database itself is closed, and
    /// the superuser's.
    ///
    /// # Errors
    /// With the first statement that fails.
    pub async fn fill(
        &self,
        name: &str,
        dump: &Path,
        more: &[&str],
        mut meanwhile: impl AsyncFnMut(Moment) -> Result<()>,
    ) -> Result<()> {
        let Some(sandbox) = self.sandbox else {
            restore(self.admin, self.session.major, name, dump, more).await?;
            return meanwhile(Moment::Filled).await;
        };
        let entries = toc::read(dump)?;
        let session = self.admin.insist(name).await?;
        // As pg_restore: what a body names need not be there yet, or not be found from here.
        session.run("SET check_function_bodies = off").await?;
        sandbox::equip(&session).await?;
        let guard = sandbox::Guard::up(&session).await?;
        let (now, last): (Vec<&Entry>, Vec<&Entry>) =
            entries.iter().filter(|entry| !is_special(entry)).partition(|entry| !comes_last(entry));
        make_all(&session, sandbox, (&now, name, dump, more), &mut meanwhile).await?;
        meanwhile(Moment::Filled).await?;
        // From here on nobody's code runs but an autovacuum worker's, which the guard keeps from
        // changing anything until all belongs to its owner; and nothing that it has made is taken
        // for what stands in the dump.
        sandbox::silence(&session).await?;
        sandbox::clear(&session).await?;
        guard.ensure_alone(&session).await?;
        let superusers: Vec<String> = session
            .column("SELECT rolname::text FROM pg_catalog.pg_roles WHERE rolsuper", &[])
            .await?;
        for entry in now
            .iter()
            .filter(|entry| entry.owner.as_ref().is_some_and(|owner| superusers.contains(owner)))
        {
            made_anew(&session, entry).await?;
        }
        hand_over(&session, &now, &superusers).await?;
        for entry in last {
            whole(entry)?;
            let definitions = if is_of_large_objects(entry) {
                one_by_one(entry, &entries)?
            } else {
                vec![entry.definition.clone()]
            };
            for definition in definitions {
                session
                    .script(&definition)
                    .await
                    .with_context(|| format!("cannot make {}", called(entry)))?;
            }
            own(&session, entry).await?;
        }
        guard.down(&session).await?;
        sandbox::ensure_none(&session).await
    }

    /// Makes in the empty database `name` what comes before the data: with the programs, the role
    /// and the extensions that are here, and of the dump at `dump` only its list of contents.
    ///
    /// # Errors
    /// With the first statement that fails: a restore would fail with it.
    pub async fn rehearse(&self, name: &str, dump: &Path, more: &[&str]) -> Result<()> {
        let Some(sandbox) = self.sandbox else {
            return restore(
                self.admin,
                self.session.major,
                name,
                dump,
                &[more, &["--section=pre-data"]].concat(),
            )
            .await;
        };
        let entries = toc::read(dump)?;
        let session = self.admin.insist(name).await?;
        sandbox::equip(&session).await?;
        // It goes with the database.
        let guard = sandbox::Guard::up(&session).await?;
        let now: Vec<&Entry> = entries
            .iter()
            .filter(|entry| {
                entry.section == Section::PreData && !is_special(entry) && !comes_last(entry)
            })
            .collect();
        make_all(&session, sandbox, (&now, name, dump, more), &mut async |_| Ok(())).await?;
        sandbox::silence(&session).await?;
        guard.ensure_alone(&session).await
    }
}

/// Gives everything to whom it belongs, and takes the rest of its rights from the sandbox's role.
async fn hand_over(session: &Session, entries: &[&Entry], superusers: &[String]) -> Result<()> {
    let sandbox = identifier(accounts::LOADER);
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for owner in entries.iter().filter_map(|entry| entry.owner.as_deref()) {
        *counts.entry(owner).or_default() += 1;
    }
    // What code has made beside the dump goes with the most: never to a superuser, if there was
    // anybody else whose code it can have been.
    let ordinary =
        |(owner, _): &(&&str, &usize)| !superusers.iter().any(|superuser| superuser == **owner);
    let most = counts.iter().filter(ordinary).max_by_key(|(_, count)| **count);
    let most =
        most.or_else(|| counts.iter().max_by_key(|(_, count)| **count)).map(|(owner, _)| *owner);
    // A sequence that belongs to a table goes with it, and must not go before it.
    let is_sequence = |entry: &&&Entry| entry.kind == "SEQUENCE";
    let ordered = entries
        .iter()
        .filter(|entry| !is_sequence(entry))
        .chain(entries.iter().filter(is_sequence));
    for entry in ordered {
        if entry.owner.as_deref() != most
            || PRIVILEGED.contains(&entry.kind.as_str())
            || entry.kind == "SCHEMA"
        {
            own(session, entry).await?;
        }
    }
    // With nobody's code in it, there is nothing that code can have made.
    if let Some(most) = most {
        let all = format!("REASSIGN OWNED BY {sandbox} TO {}", identifier(most));
        session
            .run(&all)
            .await
            .with_context(|| format!("cannot give what is left to role '{most}'"))?;
    }
    sandbox::dismiss(session).await
}

/// Whether it is not for the database's content. What is about the database itself names it as it
/// was called.
fn is_special(entry: &Entry) -> bool {
    let of_database = LAST.contains(&entry.kind.as_str())
        && entry.schema.is_none()
        && entry.tag.starts_with("DATABASE ");
    of_database || SPECIAL.contains(&entry.kind.as_str())
}

/// Whether it is made when everything else is there.
fn comes_last(entry: &Entry) -> bool {
    // One of all tables only a superuser can make.
    LAST.contains(&entry.kind.as_str())
        || entry.kind == "PUBLICATION" && entry.definition.contains(" FOR ALL TABLES")
}

/// A superuser's function again, from the dump: code that ran meanwhile could have put another in
/// its place, and given it to whom it liked.
async fn made_anew(session: &Session, entry: &Entry) -> Result<()> {
    let Some(kind) = ["FUNCTION", "PROCEDURE"].into_iter().find(|kind| *kind == entry.kind) else {
        return Ok(());
    };
    whole(entry)?;
    let (before, after) = (format!("CREATE {kind} "), format!("CREATE OR REPLACE {kind} "));
    let definition = entry.definition.replacen(&before, &after, 1);
    session
        .script(&definition)
        .await
        .with_context(|| format!("cannot make {} as it was", called(entry)))?;
    // The list of contents calls it by its bare name and its arguments' types; one that were not
    // found would keep what it was granted.
    let found = "SELECT p.oid FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace \
        WHERE n.nspname = $1::text AND p.proname::text || '(' || pg_catalog.oidvectortypes(p.proargtypes) || ')' = $2::text";
    let found: Vec<u32> = session.column(found, &[&entry.schema, &entry.tag]).await?;
    let &[oid] = found.as_slice() else {
        bail!("{} is there {} times", called(entry), found.len())
    };
    let grantees = "SELECT DISTINCT r.rolname::text FROM pg_catalog.pg_proc p CROSS JOIN LATERAL pg_catalog.aclexplode(p.proacl) a \
        JOIN pg_catalog.pg_roles r ON r.oid = a.grantee WHERE p.oid = $1";
    let grantees: Vec<String> = session.column(grantees, &[&oid]).await?;
    for thing in things(entry)? {
        for grantee in &grantees {
            session
                .run(&format!("REVOKE ALL ON {thing} FROM {} CASCADE", identifier(grantee)))
                .await?;
        }
        session.run(&format!("GRANT EXECUTE ON {thing} TO PUBLIC")).await?;
    }
    Ok(())
}

/// Makes everything of `entries`, in their order: by the superuser's session what only a superuser
/// can make, all else by pg_restore.
async fn make_all(
    session: &Session,
    sandbox: &Client,
    (entries, name, dump, more): (&[&Entry], &str, &Path, &[&str]),
    meanwhile: &mut impl AsyncFnMut(Moment) -> Result<()>,
) -> Result<()> {
    let privileged = |entry: &&Entry| PRIVILEGED.contains(&entry.kind.as_str());
    for these in entries.chunk_by(|one, next| privileged(one) == privileged(next)) {
        if these.first().is_some_and(privileged) {
            make(session, these).await?;
            sandbox::equip_for_extensions(session).await?;
            if these.iter().any(|entry| entry.kind == "EXTENSION") {
                meanwhile(Moment::Extensions).await?;
            }
            continue;
        }
        let list = list(these)?;
        let path = list.path().to_string_lossy();
        restore(
            sandbox,
            session.major,
            name,
            dump,
            &[more, &["--no-owner", "--use-list", &*path]].concat(),
        )
        .await?;
    }
    Ok(())
}

/// What only a superuser can make.
async fn make(session: &Session, entries: &[&Entry]) -> Result<()> {
    for entry in entries {
        whole(entry)?;
        session
            .script(&entry.definition)
            .await
            .with_context(|| format!("cannot make {}", called(entry)))?;
        if entry.kind == "SERVER" {
            let grant = format!(
                "GRANT USAGE ON FOREIGN SERVER {} TO {}",
                identifier(&entry.tag),
                identifier(accounts::LOADER)
            );
            session.run(&grant).await?;
        }
    }
    Ok(())
}

/// Fails if an entry is not what stands in the dump.
fn whole(entry: &Entry) -> Result<()> {
    ensure!(
        entry.is_whole,
        "{} is in an encoding that is not known: restore it by hand, with pg_restore",
        called(entry)
    );
    Ok(())
}

/// Gives one thing to its owner.
async fn own(session: &Session, entry: &Entry) -> Result<()> {
    let Some(owner) = &entry.owner else { return Ok(()) };
    whole(entry)?;
    for thing in things(entry)? {
        let sql = format!("ALTER {thing} OWNER TO {}", identifier(owner));
        session
            .run(&sql)
            .await
            .with_context(|| format!("cannot give {} to role '{owner}'", called(entry)))?;
    }
    Ok(())
}

/// How statements name what an entry makes; nothing for what has no owner of its own.
fn things(entry: &Entry) -> Result<Vec<String>> {
    let kind = entry.kind.as_str();
    if NAMED.contains(&kind) {
        let schema = entry
            .schema
            .as_ref()
            .map(|schema| format!("{}.", identifier(schema)))
            .unwrap_or_default();
        return Ok(vec![format!("{kind} {schema}{}", identifier(&entry.tag))]);
    }
    if CALLED.contains(&kind) {
        let dropped = entry.drop.trim_end().trim_end_matches(';').strip_prefix("DROP ");
        return Ok(vec![
            dropped.with_context(|| format!("{} has no name", called(entry)))?.to_owned(),
        ]);
    }
    match kind {
        LARGE_OBJECT => Ok(vec![format!("LARGE OBJECT {}", entry.tag.parse::<u32>()?)]),
        LARGE_OBJECTS => Ok(oids(entry)?.iter().map(|oid| format!("LARGE OBJECT {oid}")).collect()),
        _ => Ok(Vec::new()),
    }
}

/// The large objects of one entry, a number a line.
fn oids(entry: &Entry) -> Result<Vec<u32>> {
    Ok(entry.definition.split_whitespace().map(str::parse).collect::<Result<_, _>>()?)
}

fn is_of_large_objects(entry: &Entry) -> bool {
    entry.kind == "ACL" && entry.tag.starts_with("LARGE OBJECTS")
}

/// Privileges that many large objects have: written down for the first of them only.
fn one_by_one(entry: &Entry, entries: &[Entry]) -> Result<Vec<String>> {
    let whose =
        entries.iter().find(|other| other.kind == LARGE_OBJECTS && entry.needs.contains(&other.id));
    let oids = oids(whose.with_context(|| format!("{} are of none", called(entry)))?)?;
    let Some(first) = oids.first() else { bail!("{} are of none", called(entry)) };
    let of = |oid: &u32| {
        entry.definition.replace(&format!("LARGE OBJECT {first} "), &format!("LARGE OBJECT {oid} "))
    };
    Ok(oids.iter().map(of).collect())
}

/// For messages.
fn called(entry: &Entry) -> String {
    let schema = entry.schema.as_ref().map(|schema| format!("{schema}.")).unwrap_or_default();
    format!("{} {schema}{}", entry.kind, entry.tag)
}

/// A list of contents for pg_restore, which reads the numbers in it.
fn list(entries: &[&Entry]) -> Result<NamedTempFile> {
    let text: String = entries.iter().map(|entry| format!("{};\n", entry.id)).collect();
    let write = || -> std::io::Result<NamedTempFile> {
        let mut file = NamedTempFile::new()?;
        file.write_all(text.as_bytes())?;
        // Whatever the umask: it is read as another user, and holds numbers.
        file.as_file().set_permissions(Permissions::from_mode(0o644))?;
        Ok(file)
    };
    write().context("cannot make a temporary file")
}

/// Sets the sequences of the session's database to what they were at the capture.
pub(crate) async fn sequences(session: &Session, like: &Database) -> Result<()> {
    for (sequence, value) in &like.sequences {
        let sql = "SELECT pg_catalog.setval($1::text::pg_catalog.regclass, $2::bigint)";
        session
            .value::<i64>(sql, &[sequence, value])
            .await
            .with_context(|| format!("cannot set sequence {sequence}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: &str, tag: &str) -> Entry {
        Entry {
            id: 1,
            kind: kind.to_owned(),
            tag: tag.to_owned(),
            schema: Some("a\"b".to_owned()),
            ..Entry::default()
        }
    }

    #[test]
    fn what_has_an_owner_is_named_whatever_its_name() {
        assert_eq!(things(&entry("TABLE", "x\n;")).unwrap(), ["TABLE \"a\"\"b\".\"x\n;\""]);
        let function =
            Entry { drop: "DROP FUNCTION s.f(text);\n".to_owned(), ..entry("FUNCTION", "f(text)") };
        assert_eq!(things(&function).unwrap(), ["FUNCTION s.f(text)"]);
        assert!(things(&entry("FUNCTION", "f")).is_err());
        assert_eq!(things(&entry("INDEX", "i")).unwrap(), Vec::<String>::new());
        assert_eq!(things(&entry("BLOB", "17")).unwrap(), ["LARGE OBJECT 17"]);
        assert!(things(&entry("BLOB", "17; DROP")).is_err());
    }

    #[test]
    fn privileges_of_many_large_objects_are_given_for_each() {
        let blobs =
            Entry { id: 5, definition: "17\n18\n".to_owned(), ..entry("BLOB METADATA", "17..18") };
        let acl = Entry {
            needs: vec![5],
            definition: "GRANT SELECT ON LARGE OBJECT 17 TO a;\n".to_owned(),
            ..entry("ACL", "LARGE OBJECTS 17..18")
        };
        assert!(is_of_large_objects(&acl));
        let given = one_by_one(&acl, &[blobs]).unwrap();
        assert_eq!(
            given,
            ["GRANT SELECT ON LARGE OBJECT 17 TO a;\n", "GRANT SELECT ON LARGE OBJECT 18 TO a;\n"]
        );
    }
}
