//! What a server has beside the content of its databases: roles, who is a member of which,
//! settings, privileges on databases, tablespaces. Read from the catalogs as JSON and made again
//! name by name: a name or a value may be anything.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::quoting::{identifier, literal};
use super::session::Session;

/// Lies beside the dumps.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Globals {
    /// The role that initdb made: what it granted, only it can grant again.
    pub first: Option<String>,
    /// All but the server's own.
    pub roles: Vec<Role>,
    pub memberships: Vec<Membership>,
    pub settings: Vec<Settings>,
    pub tablespaces: Vec<Tablespace>,
    pub databases: Vec<Properties>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Role {
    pub name: String,
    pub superuser: bool,
    pub inherit: bool,
    pub create_role: bool,
    pub create_db: bool,
    pub login: bool,
    pub replication: bool,
    pub bypass_rls: bool,
    pub connection_limit: i64,
    /// As the server hashed it; none where it has none, or it could not be read.
    pub password: Option<String>,
    pub valid_until: Option<String>,
    pub comment: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Membership {
    pub role: String,
    pub member: String,
    pub grantor: Option<String>,
    pub admin: bool,
    /// Since PostgreSQL 16.
    pub inherit: Option<bool>,
    pub set: Option<bool>,
}

/// What `ALTER ROLE … [IN DATABASE …] SET` and `ALTER DATABASE … SET` have set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// None: of everybody.
    pub role: Option<String>,
    /// None: in every database.
    pub database: Option<String>,
    /// `name=value`.
    pub values: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tablespace {
    pub name: String,
    pub owner: String,
    pub location: String,
}

/// What belongs to a database and is not in its dump.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Properties {
    pub name: String,
    pub connection_limit: i64,
    pub comment: Option<String>,
    /// None: what every new database has.
    pub privileges: Option<Vec<Privilege>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Privilege {
    pub grantor: String,
    /// None: everybody.
    pub grantee: Option<String>,
    pub privilege: String,
    pub grantable: bool,
}

const ROLES: &str = "SELECT coalesce(json_agg(json_build_object('name', r.rolname, 'superuser', r.rolsuper, 'inherit', r.rolinherit, \
    'create_role', r.rolcreaterole, 'create_db', r.rolcreatedb, 'login', r.rolcanlogin, 'replication', r.rolreplication, \
    'bypass_rls', r.rolbypassrls, 'connection_limit', r.rolconnlimit, 'valid_until', r.rolvaliduntil::text, \
    'comment', pg_catalog.shobj_description(r.oid, 'pg_authid'), 'password', %) ORDER BY r.rolname), '[]')::text \
    FROM pg_catalog.@ r WHERE r.rolname !~ '^pg_'";
const PASSWORDS: &str = "SELECT pg_catalog.has_table_privilege('pg_catalog.pg_authid', 'SELECT')";
const FIRST: &str = "SELECT rolname::text FROM pg_catalog.pg_roles WHERE oid = 10";
/// Through JSON: a later server has more columns.
const MEMBERSHIPS: &str = "SELECT coalesce(json_agg(json_build_object('role', r.rolname, 'member', m.rolname, 'grantor', g.rolname, \
    'admin', a.admin_option, 'inherit', to_jsonb(a)->'inherit_option', 'set', to_jsonb(a)->'set_option') ORDER BY r.rolname, m.rolname), '[]')::text \
    FROM pg_catalog.pg_auth_members a JOIN pg_catalog.pg_roles r ON r.oid = a.roleid JOIN pg_catalog.pg_roles m ON m.oid = a.member \
    LEFT JOIN pg_catalog.pg_roles g ON g.oid = a.grantor";
const SETTINGS: &str = "SELECT coalesce(json_agg(json_build_object('role', r.rolname, 'database', d.datname, 'values', s.setconfig) \
    ORDER BY d.datname, r.rolname), '[]')::text FROM pg_catalog.pg_db_role_setting s LEFT JOIN pg_catalog.pg_roles r ON r.oid = s.setrole \
    LEFT JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase \
    WHERE (s.setrole = 0 OR r.oid IS NOT NULL) AND (s.setdatabase = 0 OR d.oid IS NOT NULL)";
const TABLESPACES: &str = "SELECT coalesce(json_agg(json_build_object('name', spcname, 'owner', pg_catalog.pg_get_userbyid(spcowner), \
    'location', pg_catalog.pg_tablespace_location(oid)) ORDER BY spcname), '[]')::text FROM pg_catalog.pg_tablespace WHERE spcname !~ '^pg_'";
const DATABASES: &str = "SELECT coalesce(json_agg(json_build_object('name', d.datname, 'connection_limit', d.datconnlimit, \
    'comment', pg_catalog.shobj_description(d.oid, 'pg_database'), 'privileges', CASE WHEN d.datacl IS NOT NULL THEN \
    (SELECT coalesce(json_agg(json_build_object('grantor', pg_catalog.pg_get_userbyid(x.grantor), \
    'grantee', CASE WHEN x.grantee <> 0 THEN pg_catalog.pg_get_userbyid(x.grantee) END, 'privilege', x.privilege_type, 'grantable', x.is_grantable) \
    ORDER BY x.ordinality), '[]') FROM pg_catalog.aclexplode(d.datacl) WITH ORDINALITY x) END) ORDER BY d.datname), '[]')::text \
    FROM pg_catalog.pg_database d WHERE d.datname = ANY($1)";

impl Globals {
    /// All there is, and of databases those that are named.
    pub async fn read(session: &Session, databases: &[String]) -> Result<Self> {
        // Of who may read them all.
        let (password, catalog) = match session.value::<bool>(PASSWORDS, &[]).await? {
            true => ("r.rolpassword", "pg_authid"),
            false => ("NULL", "pg_roles"),
        };
        let roles = ROLES.replace('%', password).replace('@', catalog);
        let json = async |sql: &str| session.value::<String>(sql, &[]).await;
        let understood = "the server's answer cannot be understood";
        Ok(Self {
            first: session.column(FIRST, &[]).await?.pop(),
            roles: serde_json::from_str(&json(&roles).await?).context(understood)?,
            memberships: serde_json::from_str(&json(MEMBERSHIPS).await?).context(understood)?,
            settings: serde_json::from_str(&json(SETTINGS).await?).context(understood)?,
            tablespaces: serde_json::from_str(&json(TABLESPACES).await?).context(understood)?,
            databases: serde_json::from_str(
                &session.value::<String>(DATABASES, &[&databases]).await?,
            )
            .context(understood)?,
        })
    }

    /// Creates the roles that the server does not have. The others stay as they are, above all their
    /// passwords. Returns the roles created, and what could not be given to them.
    pub async fn make_roles(&self, session: &Session) -> Result<(Vec<String>, Vec<String>)> {
        let there = roles(session).await?;
        let missing: Vec<&Role> =
            self.roles.iter().filter(|role| !there.contains(&role.name)).collect();
        for role in &missing {
            make_role(session, role).await?;
        }
        let made: Vec<String> = missing.into_iter().map(|role| role.name.clone()).collect();
        let mut failed = self.make_members(session, &made).await?;
        failed.extend(self.set_up(session, &made).await);
        Ok((made, failed))
    }

    /// Grants the memberships of which one side was `made`. Returns those that have no role here.
    async fn make_members(&self, session: &Session, made: &[String]) -> Result<Vec<String>> {
        let all = roles(session).await?;
        let mut failed = Vec::new();
        for membership in self.memberships.iter().filter(|membership| {
            made.contains(&membership.role) || made.contains(&membership.member)
        }) {
            if !all.contains(&membership.role) || !all.contains(&membership.member) {
                failed.push(format!(
                    "role '{}' is no member of '{}': there is no such role",
                    membership.member, membership.role
                ));
                continue;
            }
            let plain = grant(membership);
            let by = membership.grantor.as_ref().filter(|grantor| all.contains(*grantor));
            let granted = match by {
                Some(grantor) => {
                    session.run(&format!("{plain} GRANTED BY {}", identifier(grantor))).await
                }
                None => session.run(&plain).await,
            };
            // Since PostgreSQL 16 the grantor must have the right to grant.
            if granted.is_err() {
                session.run(&plain).await.with_context(|| {
                    format!(
                        "cannot make role '{}' a member of '{}'",
                        membership.member, membership.role
                    )
                })?;
            }
        }
        Ok(failed)
    }

    /// Gives roles that were `made` their settings. Returns those that the server refused.
    async fn set_up(&self, session: &Session, made: &[String]) -> Vec<String> {
        let mut failed = Vec::new();
        for settings in self.settings.iter().filter(|settings| settings.database.is_none()) {
            let Some(role) = settings.role.as_ref().filter(|role| made.contains(role)) else {
                continue;
            };
            for value in &settings.values {
                let whose = format!("ROLE {}", identifier(role));
                if let Err(error) = set(session, &whose, value).await {
                    failed
                        .push(format!("role '{role}' is without a setting that it had: {error:#}"));
                }
            }
        }
        failed
    }

    /// The tablespaces that the server does not have. They are not made: where they should be on
    /// this host, only its admin knows.
    pub async fn missing_tablespaces(&self, session: &Session) -> Result<Vec<String>> {
        let there: Vec<String> =
            session.column("SELECT spcname::text FROM pg_catalog.pg_tablespace", &[]).await?;
        Ok(self
            .tablespaces
            .iter()
            .map(|tablespace| tablespace.name.clone())
            .filter(|name| !there.contains(name))
            .collect())
    }

    /// Gives the database `name` the settings and privileges that it had. Returns what could not be
    /// given because a role does not exist.
    pub async fn adorn(&self, session: &Session, name: &str) -> Result<Vec<String>> {
        let there = roles(session).await?;
        let mut failed = self.give_settings(session, name, &there).await?;
        let Some(properties) = self.databases.iter().find(|properties| properties.name == name)
        else {
            session.run(&open(name)).await?;
            return Ok(failed);
        };
        let database = identifier(name);
        let mut statements = Vec::new();
        if properties.connection_limit != -1 {
            statements.push(format!(
                "ALTER DATABASE {database} CONNECTION LIMIT {}",
                properties.connection_limit
            ));
        }
        if let Some(comment) = &properties.comment {
            statements.push(format!("COMMENT ON DATABASE {database} IS {}", literal(comment)));
        }
        match &properties.privileges {
            // Nobody was ever given any: it has those of every new database.
            None => statements.push(open(name)),
            Some(privileges) => {
                let (grants, missing) = privileges_of(session, name, privileges, &there).await?;
                statements.extend(grants);
                failed.extend(missing);
            }
        }
        session
            .transaction(&statements)
            .await
            .with_context(|| format!("cannot give database '{name}' its privileges"))?;
        Ok(failed)
    }

    /// Gives a database its settings, for all roles and for each. Returns those of roles that do not
    /// exist.
    async fn give_settings(
        &self,
        session: &Session,
        name: &str,
        there: &BTreeSet<String>,
    ) -> Result<Vec<String>> {
        let mut failed = Vec::new();
        let database = identifier(name);
        for settings in
            self.settings.iter().filter(|settings| settings.database.as_deref() == Some(name))
        {
            let whose = match &settings.role {
                None => format!("DATABASE {database}"),
                Some(role) if there.contains(role) => {
                    format!("ROLE {} IN DATABASE {database}", identifier(role))
                }
                Some(role) => {
                    failed.push(format!(
                        "database '{name}' is without settings of role '{role}', which is not there"
                    ));
                    continue;
                }
            };
            for value in &settings.values {
                set(session, &whose, value)
                    .await
                    .with_context(|| format!("cannot give database '{name}' its settings"))?;
            }
        }
        Ok(failed)
    }
}

/// The statements that give a database exactly these privileges, and those that are of a role that
/// does not exist.
async fn privileges_of(
    session: &Session,
    name: &str,
    privileges: &[Privilege],
    there: &BTreeSet<String>,
) -> Result<(Vec<String>, Vec<String>)> {
    let database = identifier(name);
    let sql = "SELECT pg_catalog.pg_get_userbyid(datdba)::text FROM pg_catalog.pg_database WHERE datname = $1::text";
    let owner: String = session.value(sql, &[&name]).await?;
    // What a new database has, which is not in the list if it was revoked.
    let mut statements: Vec<String> = ["PUBLIC".to_owned(), identifier(&owner)]
        .map(|who| format!("REVOKE ALL ON DATABASE {database} FROM {who}"))
        .into();
    let mut failed = Vec::new();
    for privilege in privileges {
        let missing = [Some(&privilege.grantor), privilege.grantee.as_ref()]
            .into_iter()
            .flatten()
            .find(|role| !there.contains(*role));
        if let Some(missing) = missing {
            failed.push(format!(
                "database '{name}' is without a privilege of role '{missing}', which is not there"
            ));
            continue;
        }
        statements.extend(given(&database, &owner, privilege)?);
    }
    Ok((statements, failed))
}

async fn make_role(session: &Session, role: &Role) -> Result<()> {
    let name = identifier(&role.name);
    session
        .run(&create(role))
        .await
        .with_context(|| format!("cannot make role '{}'", role.name))?;
    if let Some(comment) = &role.comment {
        let comment = literal(comment);
        session.run(&format!("COMMENT ON ROLE {name} IS {comment}")).await?;
    }
    Ok(())
}

async fn roles(session: &Session) -> Result<BTreeSet<String>> {
    let names: Vec<String> =
        session.column("SELECT rolname::text FROM pg_catalog.pg_roles", &[]).await?;
    Ok(names.into_iter().collect())
}

/// Opens a database to everybody, as a new one is.
pub(crate) fn open(name: &str) -> String {
    format!("GRANT CONNECT, TEMPORARY ON DATABASE {} TO PUBLIC", identifier(name))
}

fn create(role: &Role) -> String {
    // Only what is not so anyway: who is no superuser may not even say that it is none.
    let attributes = [
        (role.superuser, "SUPERUSER"),
        (!role.inherit, "NOINHERIT"),
        (role.create_role, "CREATEROLE"),
        (role.create_db, "CREATEDB"),
        (role.login, "LOGIN"),
        (role.replication, "REPLICATION"),
        (role.bypass_rls, "BYPASSRLS"),
    ];
    let mut words: Vec<String> = attributes
        .iter()
        .filter(|(wanted, _)| *wanted)
        .map(|(_, word)| (*word).to_owned())
        .collect();
    if role.connection_limit != -1 {
        words.push(format!("CONNECTION LIMIT {}", role.connection_limit));
    }
    words.extend(role.password.as_ref().map(|password| format!("PASSWORD {}", literal(password))));
    words.extend(role.valid_until.as_ref().map(|time| format!("VALID UNTIL {}", literal(time))));
    format!("CREATE ROLE {} {}", identifier(&role.name), words.join(" "))
}

fn grant(membership: &Membership) -> String {
    let mut sql =
        format!("GRANT {} TO {}", identifier(&membership.role), identifier(&membership.member));
    match (membership.inherit, membership.set) {
        (Some(inherit), Some(set)) => {
            sql.push_str(&format!(
                " WITH ADMIN {}, INHERIT {inherit}, SET {set}",
                membership.admin
            ));
        }
        _ if membership.admin => sql.push_str(" WITH ADMIN OPTION"),
        _ => {}
    }
    sql
}

/// One privilege on a database, granted by whom it was.
fn given(database: &str, owner: &str, privilege: &Privilege) -> Result<Vec<String>> {
    if !privilege.privilege.chars().all(|c| c.is_ascii_uppercase() || c == ' ') {
        bail!("'{}' is no privilege", privilege.privilege);
    }
    let grantee =
        privilege.grantee.as_ref().map_or_else(|| "PUBLIC".to_owned(), |role| identifier(role));
    let option = if privilege.grantable { " WITH GRANT OPTION" } else { "" };
    let grant =
        format!("GRANT {} ON DATABASE {database} TO {grantee}{option}", privilege.privilege);
    if privilege.grantor == owner {
        return Ok(vec![grant]);
    }
    Ok(vec![
        format!("SET LOCAL ROLE {}", identifier(&privilege.grantor)),
        grant,
        "RESET ROLE".to_owned(),
    ])
}

/// `ALTER whose SET` of `name=value`.
async fn set(session: &Session, whose: &str, setting: &str) -> Result<()> {
    let (name, value) =
        setting.split_once('=').with_context(|| format!("'{setting}' is no setting"))?;
    // The parts of a name such as `plpgsql.check_asserts`.
    let parts: Vec<String> = name.split('.').map(identifier).collect();
    session
        .run(&format!("ALTER {whose} SET {} TO {}", parts.join("."), written(name, value)?))
        .await
}

/// Those that are lists of names: quoted as a whole, a list would become one name.
const LISTS: [&str; 6] = [
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
];

fn written(name: &str, value: &str) -> Result<String> {
    if !LISTS.contains(&name.to_lowercase().as_str()) || value.is_empty() {
        return Ok(literal(value));
    }
    let names = list(value).with_context(|| format!("'{value}' is no list of names"))?;
    Ok(names.iter().map(|name| literal(name)).collect::<Vec<_>>().join(", "))
}

/// The names in a list such as `"$user", public`.
fn list(text: &str) -> Option<Vec<String>> {
    let mut names = Vec::new();
    let mut rest = text.trim_start();
    loop {
        let mut name = String::new();
        if let Some(quoted) = rest.strip_prefix('"') {
            rest = quoted;
            loop {
                let (before, after) = rest.split_once('"')?;
                name.push_str(before);
                match after.strip_prefix('"') {
                    Some(more) => {
                        name.push('"');
                        rest = more;
                    }
                    None => {
                        rest = after;
                        break;
                    }
                }
            }
        } else {
            let end =
                rest.find([',', ' ', '\t', '\n', '\r', '\u{b}', '\u{c}']).unwrap_or(rest.len());
            let (plain, after) = rest.split_at(end);
            if plain.is_empty() {
                return None;
            }
            name.push_str(plain);
            rest = after;
        }
        names.push(name);
        rest = rest.trim_start();
        match rest.strip_prefix(',') {
            Some(more) => rest = more.trim_start(),
            None if rest.is_empty() => return Some(names),
            None => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_names_stays_one() {
        assert_eq!(list("\"$user\", public").unwrap(), ["$user", "public"]);
        assert_eq!(list("\"a\"\"b, c\",d , \"\"").unwrap(), ["a\"b, c", "d", ""]);
        for bad in ["", ",", "a,", "\"a", "a b", "a,,b"] {
            assert_eq!(list(bad), None, "{bad}");
        }
        assert_eq!(written("search_path", "\"$user\", public").unwrap(), "E'$user', E'public'");
        assert_eq!(written("work_mem", "it's").unwrap(), "E'it''s'");
        assert_eq!(written("search_path", "").unwrap(), "E''");
    }

    #[test]
    fn a_role_is_made_with_what_it_had() {
        let role = Role {
            name: "a\nb\"".to_owned(),
            login: true,
            inherit: true,
            connection_limit: -1,
            ..Role::default()
        };
        assert_eq!(create(&role), "CREATE ROLE \"a\nb\"\"\" LOGIN");
        let role = Role {
            superuser: true,
            password: Some("x'\n".to_owned()),
            connection_limit: 3,
            ..role
        };
        assert_eq!(
            create(&role),
            "CREATE ROLE \"a\nb\"\"\" SUPERUSER LOGIN CONNECTION LIMIT 3 PASSWORD E'x''\n'"
        );
    }
}
