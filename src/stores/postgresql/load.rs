//! Loads a dump into a new database, in a restore or in the throwaway server of a drill.
//!
//! pg_restore runs as the role of [`sandbox`] and not as a superuser, so the role owns everything
//! that pg_restore creates. A superuser's session creates the objects that only a superuser can
//! create, and those that must come last; the lists below say which. The statements for these
//! objects contain no expressions, so they run no code of the database's owner.

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
use super::toc::{self, TocEntry, TocSection};

/// The kinds of entries that the superuser's session creates in their place in the order, because
/// later entries may depend on them.
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
/// The kinds of entries that the superuser's session creates at the end, when all other objects are
/// handed over to their owners. Without user mappings, loaded code cannot connect to other servers.
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
/// The kinds of entries that describe the dump or the database itself. They are in no list for
/// pg_restore, which applies those that it needs by itself.
const SPECIAL: [&str; 5] =
    ["ENCODING", "STDSTRINGS", "SEARCHPATH", "DATABASE", "DATABASE PROPERTIES"];
/// The kinds of objects that have an owner and are identified by kind and name.
const IDENTIFIED_BY_NAME: [&str; 19] = [
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
/// The kinds of objects that have an owner and are identified by their arguments, too. The entry's
/// DROP statement has the whole identification.
const IDENTIFIED_BY_ARGUMENTS: [&str; 6] =
    ["AGGREGATE", "FUNCTION", "OPERATOR", "OPERATOR CLASS", "OPERATOR FAMILY", "PROCEDURE"];
/// The kind of an entry with one large object.
const LARGE_OBJECT: &str = "BLOB";
/// The kind of an entry with many large objects, since PostgreSQL 17.
const LARGE_OBJECTS: &str = "BLOB METADATA";

/// The roles that load a dump.
pub(crate) struct Loader<'a> {
    /// The role that creates databases.
    pub admin: &'a Client,
    /// A session of this role.
    pub session: &'a Session,
    /// The role without rights; `None` if the role that creates databases is not a superuser.
    pub sandbox: Option<&'a Client>,
}

/// A moment in a load at which the caller can act. The role that fills the database still owns
/// everything in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// Extensions were created, and no data of the dump is loaded yet. This may happen several
    /// times, or not at all.
    Extensions,
    /// All data is loaded.
    Filled,
}

impl Loader<'_> {
    /// Creates the empty database `name` with the encoding and the locale of `like`, for the role
    /// that fills it.
    ///
    /// # Errors
    /// If the database exists, or the server does not have the locale.
    pub async fn create(&self, name: &str, like: &Database) -> Result<()> {
        let mut sql = format!("CREATE DATABASE {} TEMPLATE template0", identifier(name));
        if self.sandbox.is_some() {
            // Every role may connect to a new database, and a session that did so early would still
            // be in the database when the objects are handed over.
            sql.push_str(" ALLOW_CONNECTIONS false");
        } else if !like.owner.is_empty() {
            write!(sql, " OWNER {}", identifier(&like.owner))?;
        }
        // Runs of early versions have not recorded the encoding: use the server's default.
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
        // A missing tablespace is noted elsewhere (`note_differences`).
        if let Some(tablespace) = &like.tablespace {
            let existing: Vec<String> = self
                .session
                .column(
                    "SELECT spcname::text FROM pg_catalog.pg_tablespace WHERE spcname = \
                         $1::text::name",
                    &[tablespace],
                )
                .await?;
            if !existing.is_empty() {
                write!(sql, " TABLESPACE {}", identifier(tablespace))?;
            }
        }
        self.session
            .run_with_barrier(&sql)
            .await
            .with_context(|| format!("cannot create database '{name}'"))?;
        if self.sandbox.is_some() {
            sandbox::open_for_role(self.session, name).await
        } else {
            Ok(())
        }
    }

    /// Fills the empty database `name` from the directory-format dump at `dump`, with `more`
    /// options for pg_restore, and gives the objects to their owners. Calls `at_moment` at each
    /// [`Moment`]. The database itself still belongs to the superuser afterwards, and allows no
    /// other connections.
    ///
    /// # Errors
    /// If a statement fails.
    pub async fn fill(
        &self,
        name: &str,
        dump: &Path,
        more: &[&str],
        mut at_moment: impl AsyncFnMut(Moment) -> Result<()>,
    ) -> Result<()> {
        let Some(sandbox) = self.sandbox else {
            restore(self.admin, self.session.major, name, dump, more).await?;
            return at_moment(Moment::Filled).await;
        };
        let entries = toc::read(dump)?;
        let session = self.admin.connect_ending_blockers(name).await?;
        // As pg_restore does: objects in the body of a function may not exist yet.
        session.run("SET check_function_bodies = off").await?;
        sandbox::grant_rights(&session).await?;
        let guard = sandbox::Guard::create(&session).await?;
        let (now, last): (Vec<&TocEntry>, Vec<&TocEntry>) =
            entries.iter().filter(|entry| !is_special(entry)).partition(|entry| !comes_last(entry));
        create_all(&session, sandbox, (&now, name, dump, more), &mut at_moment).await?;
        at_moment(Moment::Filled).await?;
        // From here on, loaded code runs only in autovacuum workers. The guard prevents them from
        // changing anything until all objects are handed over.
        sandbox::lock_out(&session).await?;
        sandbox::end_other_sessions(&session).await?;
        guard.ensure_alone(&session).await?;
        let superusers: Vec<String> = session
            .column("SELECT rolname::text FROM pg_catalog.pg_roles WHERE rolsuper", &[])
            .await?;
        for entry in now
            .iter()
            .filter(|entry| entry.owner.as_ref().is_some_and(|owner| superusers.contains(owner)))
        {
            recreate_function(&session, entry).await?;
        }
        hand_over(&session, &now, &superusers).await?;
        create_last(&session, &last, &entries).await?;
        guard.remove(&session).await?;
        sandbox::ensure_owns_nothing(&session).await
    }

    /// Creates in the empty database `name` the objects of the dump's pre-data section. Of the dump
    /// at `dump`, only the table of contents is needed.
    ///
    /// # Errors
    /// If a statement fails: a restore would fail, too.
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
        let session = self.admin.connect_ending_blockers(name).await?;
        sandbox::grant_rights(&session).await?;
        // The guard is dropped together with the database.
        let guard = sandbox::Guard::create(&session).await?;
        let now: Vec<&TocEntry> = entries
            .iter()
            .filter(|entry| {
                entry.section == TocSection::PreData && !is_special(entry) && !comes_last(entry)
            })
            .collect();
        create_all(&session, sandbox, (&now, name, dump, more), &mut async |_| Ok(())).await?;
        sandbox::lock_out(&session).await?;
        guard.ensure_alone(&session).await
    }
}

/// Creates the entries that come last, as the superuser, and gives the objects to their owners.
async fn create_last(session: &Session, last: &[&TocEntry], entries: &[TocEntry]) -> Result<()> {
    for entry in last {
        ensure_utf8(entry)?;
        let definitions = if is_acl_of_large_objects(entry) {
            acl_of_each_large_object(entry, entries)?
        } else {
            vec![entry.definition.clone()]
        };
        for definition in definitions {
            session
                .script(&definition)
                .await
                .with_context(|| format!("cannot create {}", describe(entry)))?;
        }
        set_owner(session, entry).await?;
    }
    Ok(())
}

/// Gives all objects to their owners, and revokes the remaining rights of the sandbox's role.
async fn hand_over(session: &Session, entries: &[&TocEntry], superusers: &[String]) -> Result<()> {
    let sandbox = identifier(accounts::LOADER);
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for owner in entries.iter().filter_map(|entry| entry.owner.as_deref()) {
        *counts.entry(owner).or_default() += 1;
    }
    // The owner of most objects also gets the objects that loaded code has created in addition to
    // the dump's. That is not a superuser if any other role owns an object: then it is that role's
    // code.
    let is_ordinary =
        |(owner, _): &(&&str, &usize)| !superusers.iter().any(|superuser| superuser == **owner);
    let most = counts.iter().filter(is_ordinary).max_by_key(|(_, count)| **count);
    let most =
        most.or_else(|| counts.iter().max_by_key(|(_, count)| **count)).map(|(owner, _)| *owner);
    // Sequences come last: a sequence that belongs to a table changes its owner with the table, and
    // must not have another owner before.
    let is_sequence = |entry: &&&TocEntry| entry.kind == "SEQUENCE";
    let ordered = entries
        .iter()
        .filter(|entry| !is_sequence(entry))
        .chain(entries.iter().filter(is_sequence));
    for entry in ordered {
        if entry.owner.as_deref() != most
            || PRIVILEGED.contains(&entry.kind.as_str())
            || entry.kind == "SCHEMA"
        {
            set_owner(session, entry).await?;
        }
    }
    // If nobody owns an object in the dump, there is no code that can have created more.
    if let Some(most) = most {
        let all = format!("REASSIGN OWNED BY {sandbox} TO {}", identifier(most));
        session
            .run(&all)
            .await
            .with_context(|| format!("cannot give the remaining objects to role '{most}'"))?;
    }
    sandbox::revoke_rights(session).await
}

/// Whether the entry describes the dump, or the database itself. Its statements would name the
/// database as it was called when it was dumped.
fn is_special(entry: &TocEntry) -> bool {
    let of_database = LAST.contains(&entry.kind.as_str())
        && entry.schema.is_none()
        && entry.tag.starts_with("DATABASE ");
    of_database || SPECIAL.contains(&entry.kind.as_str())
}

/// Whether the entry is created when all other objects are handed over.
fn comes_last(entry: &TocEntry) -> bool {
    // Only a superuser can create a publication of all tables.
    LAST.contains(&entry.kind.as_str())
        || entry.kind == "PUBLICATION" && entry.definition.contains(" FOR ALL TABLES")
}

/// Creates a superuser's function again from the dump, and resets its privileges: while the
/// sandbox's role owned the function, loaded code could have replaced it, and granted others
/// access.
async fn recreate_function(session: &Session, entry: &TocEntry) -> Result<()> {
    let Some(kind) = ["FUNCTION", "PROCEDURE"].into_iter().find(|kind| *kind == entry.kind) else {
        return Ok(());
    };
    ensure_utf8(entry)?;
    let (before, after) = (format!("CREATE {kind} "), format!("CREATE OR REPLACE {kind} "));
    let definition = entry.definition.replacen(&before, &after, 1);
    session
        .script(&definition)
        .await
        .with_context(|| format!("cannot create {} again", describe(entry)))?;
    // The table of contents has the function's name without the schema, and the types of its
    // arguments. A function that was not found here would keep its privileges, so that is an error.
    let found = "SELECT p.oid FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = \
                 p.pronamespace \
        WHERE n.nspname = $1::text AND p.proname::text || '(' || \
        pg_catalog.oidvectortypes(p.proargtypes) || ')' = $2::text";
    let found: Vec<u32> = session.column(found, &[&entry.schema, &entry.tag]).await?;
    let &[oid] = found.as_slice() else {
        bail!("{} exists {} times", describe(entry), found.len())
    };
    let grantees = "SELECT DISTINCT r.rolname::text FROM pg_catalog.pg_proc p CROSS JOIN LATERAL \
                    pg_catalog.aclexplode(p.proacl) a \
        JOIN pg_catalog.pg_roles r ON r.oid = a.grantee WHERE p.oid = $1";
    let grantees: Vec<String> = session.column(grantees, &[&oid]).await?;
    for object in owned_objects(entry)? {
        for grantee in &grantees {
            session
                .run(&format!("REVOKE ALL ON {object} FROM {} CASCADE", identifier(grantee)))
                .await?;
        }
        session.run(&format!("GRANT EXECUTE ON {object} TO PUBLIC")).await?;
    }
    Ok(())
}

/// Restores `entries` in their order: the superuser's session creates the privileged ones, and
/// pg_restore the others.
async fn create_all(
    session: &Session,
    sandbox: &Client,
    (entries, name, dump, more): (&[&TocEntry], &str, &Path, &[&str]),
    at_moment: &mut impl AsyncFnMut(Moment) -> Result<()>,
) -> Result<()> {
    let is_privileged = |entry: &&TocEntry| PRIVILEGED.contains(&entry.kind.as_str());
    for chunk in entries.chunk_by(|one, next| is_privileged(one) == is_privileged(next)) {
        if chunk.first().is_some_and(is_privileged) {
            create_privileged(session, chunk).await?;
            sandbox::grant_extension_rights(session).await?;
            if chunk.iter().any(|entry| entry.kind == "EXTENSION") {
                at_moment(Moment::Extensions).await?;
            }
            continue;
        }
        let list = write_list(chunk)?;
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

/// Creates objects that only a superuser can create.
async fn create_privileged(session: &Session, entries: &[&TocEntry]) -> Result<()> {
    for entry in entries {
        ensure_utf8(entry)?;
        session
            .script(&entry.definition)
            .await
            .with_context(|| format!("cannot create {}", describe(entry)))?;
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

/// Fails if the strings of an entry could not be read as they are in the dump.
fn ensure_utf8(entry: &TocEntry) -> Result<()> {
    ensure!(
        entry.is_utf8,
        "{} is in an unknown encoding: restore it by hand, with pg_restore",
        describe(entry)
    );
    Ok(())
}

/// Gives the objects of an entry to their owner.
async fn set_owner(session: &Session, entry: &TocEntry) -> Result<()> {
    let Some(owner) = &entry.owner else { return Ok(()) };
    ensure_utf8(entry)?;
    for object in owned_objects(entry)? {
        let sql = format!("ALTER {object} OWNER TO {}", identifier(owner));
        session
            .run(&sql)
            .await
            .with_context(|| format!("cannot give {} to role '{owner}'", describe(entry)))?;
    }
    Ok(())
}

/// Returns the kind and quoted name of each object of an entry, for statements. Empty if the
/// objects have no owner.
fn owned_objects(entry: &TocEntry) -> Result<Vec<String>> {
    let kind = entry.kind.as_str();
    if IDENTIFIED_BY_NAME.contains(&kind) {
        let schema = entry
            .schema
            .as_ref()
            .map(|schema| format!("{}.", identifier(schema)))
            .unwrap_or_default();
        return Ok(vec![format!("{kind} {schema}{}", identifier(&entry.tag))]);
    }
    if IDENTIFIED_BY_ARGUMENTS.contains(&kind) {
        let dropped = entry.drop.trim_end().trim_end_matches(';').strip_prefix("DROP ");
        return Ok(vec![
            dropped
                .with_context(|| format!("{} has no DROP statement", describe(entry)))?
                .to_owned(),
        ]);
    }
    match kind {
        LARGE_OBJECT => Ok(vec![format!("LARGE OBJECT {}", entry.tag.parse::<u32>()?)]),
        LARGE_OBJECTS => {
            Ok(large_object_oids(entry)?.iter().map(|oid| format!("LARGE OBJECT {oid}")).collect())
        }
        _ => Ok(Vec::new()),
    }
}

/// Reads the OIDs in an entry with many large objects: its definition has one in each line.
fn large_object_oids(entry: &TocEntry) -> Result<Vec<u32>> {
    Ok(entry.definition.split_whitespace().map(str::parse).collect::<Result<_, _>>()?)
}

fn is_acl_of_large_objects(entry: &TocEntry) -> bool {
    entry.kind == "ACL" && entry.tag.starts_with("LARGE OBJECTS")
}

/// Returns the statements with the privileges of each large object. The entry has only those of the
/// first one; the others have the same.
fn acl_of_each_large_object(entry: &TocEntry, entries: &[TocEntry]) -> Result<Vec<String>> {
    let objects =
        entries.iter().find(|other| other.kind == LARGE_OBJECTS && entry.needs.contains(&other.id));
    let missing = || format!("{}: the large objects are not in the dump", describe(entry));
    let oids = large_object_oids(objects.with_context(missing)?)?;
    let first = oids.first().with_context(missing)?;
    let statements_for = |oid: &u32| {
        entry.definition.replace(&format!("LARGE OBJECT {first} "), &format!("LARGE OBJECT {oid} "))
    };
    Ok(oids.iter().map(statements_for).collect())
}

/// Describes an entry, for messages.
fn describe(entry: &TocEntry) -> String {
    let schema = entry.schema.as_ref().map(|schema| format!("{schema}.")).unwrap_or_default();
    format!("{} {schema}{}", entry.kind, entry.tag)
}

/// Writes a list for `pg_restore --use-list`: the numbers of the entries.
fn write_list(entries: &[&TocEntry]) -> Result<NamedTempFile> {
    let text: String = entries.iter().map(|entry| format!("{};\n", entry.id)).collect();
    let write = || -> std::io::Result<NamedTempFile> {
        let mut file = NamedTempFile::new()?;
        file.write_all(text.as_bytes())?;
        // The account of pg_restore must be able to read the file, whatever the umask is.
        file.as_file().set_permissions(Permissions::from_mode(0o644))?;
        Ok(file)
    };
    write().context("cannot create a temporary file")
}

/// Sets the sequences of the session's database to the values that they had at the capture.
pub(crate) async fn set_sequences(session: &Session, recorded: &Database) -> Result<()> {
    for (sequence, value) in &recorded.sequences {
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

    fn entry(kind: &str, tag: &str) -> TocEntry {
        TocEntry {
            id: 1,
            kind: kind.to_owned(),
            tag: tag.to_owned(),
            schema: Some("a\"b".to_owned()),
            ..TocEntry::default()
        }
    }

    #[test]
    fn objects_with_an_owner_are_identified_whatever_their_name() {
        assert_eq!(owned_objects(&entry("TABLE", "x\n;")).unwrap(), ["TABLE \"a\"\"b\".\"x\n;\""]);
        let function = TocEntry {
            drop: "DROP FUNCTION s.f(text);\n".to_owned(),
            ..entry("FUNCTION", "f(text)")
        };
        assert_eq!(owned_objects(&function).unwrap(), ["FUNCTION s.f(text)"]);
        assert!(owned_objects(&entry("FUNCTION", "f")).is_err());
        assert_eq!(owned_objects(&entry("INDEX", "i")).unwrap(), Vec::<String>::new());
        assert_eq!(owned_objects(&entry("BLOB", "17")).unwrap(), ["LARGE OBJECT 17"]);
        assert!(owned_objects(&entry("BLOB", "17; DROP")).is_err());
    }

    #[test]
    fn the_privileges_of_many_large_objects_are_granted_for_each() {
        let blobs = TocEntry {
            id: 5,
            definition: "17\n18\n".to_owned(),
            ..entry("BLOB METADATA", "17..18")
        };
        let acl = TocEntry {
            needs: vec![5],
            definition: "GRANT SELECT ON LARGE OBJECT 17 TO a;\n".to_owned(),
            ..entry("ACL", "LARGE OBJECTS 17..18")
        };
        assert!(is_acl_of_large_objects(&acl));
        let statements = acl_of_each_large_object(&acl, &[blobs]).unwrap();
        assert_eq!(
            statements,
            ["GRANT SELECT ON LARGE OBJECT 17 TO a;\n", "GRANT SELECT ON LARGE OBJECT 18 TO a;\n"]
        );
    }
}
