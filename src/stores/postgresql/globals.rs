//! The global objects of a server, which are not in the dumps of its databases: roles, memberships,
//! settings, privileges on databases, tablespaces. Read from the catalogs as JSON, and created
//! again with every name and value quoted.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::quoting::{identifier, literal};
use super::session::Session;

/// The global objects of a server, as `postgresql.json` records them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Globals {
    /// The bootstrap superuser, which initdb created. Only a role of the same name can repeat its
    /// grants.
    pub first: Option<String>,
    /// All roles except the predefined ones.
    pub roles: Vec<Role>,
    pub memberships: Vec<Membership>,
    pub settings: Vec<DbRoleSettings>,
    pub tablespaces: Vec<Tablespace>,
    pub databases: Vec<DatabaseProperties>,
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
    /// The hash of the password; `None` if the role has no password, or the hash could not be read.
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
    /// `inherit` and `set` exist since PostgreSQL 16.
    pub inherit: Option<bool>,
    pub set: Option<bool>,
}

/// The settings of `ALTER ROLE … [IN DATABASE …] SET` and `ALTER DATABASE … SET`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DbRoleSettings {
    /// `None`: for every role.
    pub role: Option<String>,
    /// `None`: in every database.
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

/// The properties of a database that are not in its dump.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DatabaseProperties {
    pub name: String,
    pub connection_limit: i64,
    pub comment: Option<String>,
    /// `None`: the default privileges of a new database.
    pub privileges: Option<Vec<Privilege>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Privilege {
    pub grantor: String,
    /// `None`: PUBLIC.
    pub grantee: Option<String>,
    pub privilege: String,
    pub grantable: bool,
}

/// `%` stands for the column with the password, `@` for the catalog.
const ROLES: &str = "SELECT coalesce(json_agg(json_build_object('name', r.rolname, 'superuser', \
                     r.rolsuper, 'inherit', r.rolinherit, \
    'create_role', r.rolcreaterole, 'create_db', r.rolcreatedb, 'login', r.rolcanlogin, \
    'replication', r.rolreplication, \
    'bypass_rls', r.rolbypassrls, 'connection_limit', r.rolconnlimit, 'valid_until', \
    r.rolvaliduntil::text, \
    'comment', pg_catalog.shobj_description(r.oid, 'pg_authid'), 'password', %) ORDER BY \
    r.rolname), '[]')::text \
    FROM pg_catalog.@ r WHERE r.rolname !~ '^pg_'";
const PASSWORDS: &str = "SELECT pg_catalog.has_table_privilege('pg_catalog.pg_authid', 'SELECT')";
const FIRST: &str = "SELECT rolname::text FROM pg_catalog.pg_roles WHERE oid = 10";
/// Converts the row to JSON, because newer servers have more columns.
const MEMBERSHIPS: &str = "SELECT coalesce(json_agg(json_build_object('role', r.rolname, 'member', \
                           m.rolname, 'grantor', g.rolname, \
    'admin', a.admin_option, 'inherit', to_jsonb(a)->'inherit_option', 'set', \
    to_jsonb(a)->'set_option') ORDER BY r.rolname, m.rolname), '[]')::text \
    FROM pg_catalog.pg_auth_members a JOIN pg_catalog.pg_roles r ON r.oid = a.roleid JOIN \
    pg_catalog.pg_roles m ON m.oid = a.member \
    LEFT JOIN pg_catalog.pg_roles g ON g.oid = a.grantor";
const SETTINGS: &str = "SELECT coalesce(json_agg(json_build_object('role', r.rolname, 'database', \
                        d.datname, 'values', s.setconfig) \
    ORDER BY d.datname, r.rolname), '[]')::text FROM pg_catalog.pg_db_role_setting s LEFT JOIN \
    pg_catalog.pg_roles r ON r.oid = s.setrole \
    LEFT JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase \
    WHERE (s.setrole = 0 OR r.oid IS NOT NULL) AND (s.setdatabase = 0 OR d.oid IS NOT NULL)";
const TABLESPACES: &str = "SELECT coalesce(json_agg(json_build_object('name', spcname, 'owner', \
                           pg_catalog.pg_get_userbyid(spcowner), \
    'location', pg_catalog.pg_tablespace_location(oid)) ORDER BY spcname), '[]')::text FROM \
    pg_catalog.pg_tablespace WHERE spcname !~ '^pg_'";
const DATABASES: &str = "SELECT coalesce(json_agg(json_build_object('name', d.datname, \
                         'connection_limit', d.datconnlimit, \
    'comment', pg_catalog.shobj_description(d.oid, 'pg_database'), 'privileges', CASE WHEN \
    d.datacl IS NOT NULL THEN \
    (SELECT coalesce(json_agg(json_build_object('grantor', pg_catalog.pg_get_userbyid(x.grantor), \
    'grantee', CASE WHEN x.grantee <> 0 THEN pg_catalog.pg_get_userbyid(x.grantee) END, \
    'privilege', x.privilege_type, 'grantable', x.is_grantable) \
    ORDER BY x.ordinality), '[]') FROM pg_catalog.aclexplode(d.datacl) WITH ORDINALITY x) END) \
    ORDER BY d.datname), '[]')::text \
    FROM pg_catalog.pg_database d WHERE d.datname = ANY($1)";

impl Globals {
    /// Reads the global objects, and the properties of `databases`.
    pub async fn read(session: &Session, databases: &[String]) -> Result<Self> {
        let (password, catalog) = match session.value::<bool>(PASSWORDS, &[]).await? {
            true => ("r.rolpassword", "pg_authid"),
            false => ("NULL", "pg_roles"),
        };
        let roles = ROLES.replace('%', password).replace('@', catalog);
        let json = async |sql: &str| session.value::<String>(sql, &[]).await;
        let parse_error = "cannot parse the server's answer";
        Ok(Self {
            first: session.column(FIRST, &[]).await?.pop(),
            roles: serde_json::from_str(&json(&roles).await?).context(parse_error)?,
            memberships: serde_json::from_str(&json(MEMBERSHIPS).await?).context(parse_error)?,
            settings: serde_json::from_str(&json(SETTINGS).await?).context(parse_error)?,
            tablespaces: serde_json::from_str(&json(TABLESPACES).await?).context(parse_error)?,
            databases: serde_json::from_str(
                &session.value::<String>(DATABASES, &[&databases]).await?,
            )
            .context(parse_error)?,
        })
    }

    /// Creates the roles that the server does not have, with their memberships and settings. Does
    /// not change existing roles, in particular not their passwords. Returns the names of the
    /// created roles, and a sentence for each membership and setting that could not be restored.
    pub async fn create_missing_roles(
        &self,
        session: &Session,
    ) -> Result<(Vec<String>, Vec<String>)> {
        let existing = list_roles(session).await?;
        let missing: Vec<&Role> =
            self.roles.iter().filter(|role| !existing.contains(&role.name)).collect();
        for role in &missing {
            create_role(session, role).await?;
        }
        let created: Vec<String> = missing.into_iter().map(|role| role.name.clone()).collect();
        let mut failed = self.grant_memberships(session, &created).await?;
        failed.extend(self.apply_role_settings(session, &created).await);
        Ok((created, failed))
    }

    /// Grants the memberships of `created` roles, and in them. Returns a sentence for each
    /// membership of which a role does not exist.
    async fn grant_memberships(
        &self,
        session: &Session,
        created: &[String],
    ) -> Result<Vec<String>> {
        let all = list_roles(session).await?;
        let mut failed = Vec::new();
        for membership in self.memberships.iter().filter(|membership| {
            created.contains(&membership.role) || created.contains(&membership.member)
        }) {
            if !all.contains(&membership.role) || !all.contains(&membership.member) {
                failed.push(format!(
                    "role '{}' is not a member of '{}' any more: one of them does not exist",
                    membership.member, membership.role
                ));
                continue;
            }
            let plain = membership_grant(membership);
            let grantor = membership.grantor.as_ref().filter(|grantor| all.contains(*grantor));
            let granted = match grantor {
                Some(grantor) => {
                    session.run(&format!("{plain} GRANTED BY {}", identifier(grantor))).await
                }
                None => session.run(&plain).await,
            };
            // Since PostgreSQL 16 the grantor must itself have the right to grant.
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

    /// Gives `created` roles their settings. Returns a sentence for each setting that the server
    /// refused.
    async fn apply_role_settings(&self, session: &Session, created: &[String]) -> Vec<String> {
        let mut failed = Vec::new();
        for settings in self.settings.iter().filter(|settings| settings.database.is_none()) {
            let Some(role) = settings.role.as_ref().filter(|role| created.contains(role)) else {
                continue;
            };
            for value in &settings.values {
                let target = format!("ROLE {}", identifier(role));
                if let Err(error) = set(session, &target, value).await {
                    failed.push(format!("a setting of role '{role}' is missing: {error:#}"));
                }
            }
        }
        failed
    }

    /// Lists the tablespaces that the server does not have. They are not created, because only the
    /// admin knows where on this host they should be.
    pub async fn missing_tablespaces(&self, session: &Session) -> Result<Vec<String>> {
        let existing: Vec<String> =
            session.column("SELECT spcname::text FROM pg_catalog.pg_tablespace", &[]).await?;
        Ok(self
            .tablespaces
            .iter()
            .map(|tablespace| tablespace.name.clone())
            .filter(|name| !existing.contains(name))
            .collect())
    }

    /// Gives the database `name` the settings, comment, connection limit and privileges that it
    /// had. Returns a sentence for each setting and privilege of a role that does not exist.
    pub async fn restore_properties(&self, session: &Session, name: &str) -> Result<Vec<String>> {
        let existing = list_roles(session).await?;
        let mut failed = self.apply_database_settings(session, name, &existing).await?;
        let Some(properties) = self.databases.iter().find(|properties| properties.name == name)
        else {
            session.run(&grant_default_privileges(name)).await?;
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
            None => statements.push(grant_default_privileges(name)),
            Some(privileges) => {
                let (grants, missing) =
                    privilege_statements(session, name, privileges, &existing).await?;
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

    /// Gives a database its settings, for all roles and for single roles. Returns a sentence for
    /// each role that does not exist.
    async fn apply_database_settings(
        &self,
        session: &Session,
        name: &str,
        existing: &BTreeSet<String>,
    ) -> Result<Vec<String>> {
        let mut failed = Vec::new();
        let database = identifier(name);
        for settings in
            self.settings.iter().filter(|settings| settings.database.as_deref() == Some(name))
        {
            let target = match &settings.role {
                None => format!("DATABASE {database}"),
                Some(role) if existing.contains(role) => {
                    format!("ROLE {} IN DATABASE {database}", identifier(role))
                }
                Some(role) => {
                    failed.push(format!(
                        "the settings of role '{role}' in database '{name}' are missing: the role \
                         does not exist"
                    ));
                    continue;
                }
            };
            for value in &settings.values {
                set(session, &target, value)
                    .await
                    .with_context(|| format!("cannot give database '{name}' its settings"))?;
            }
        }
        Ok(failed)
    }
}

/// Returns the statements that give a database exactly these privileges, and a sentence for each
/// privilege of a role that does not exist.
async fn privilege_statements(
    session: &Session,
    name: &str,
    privileges: &[Privilege],
    existing: &BTreeSet<String>,
) -> Result<(Vec<String>, Vec<String>)> {
    let database = identifier(name);
    let sql = "SELECT pg_catalog.pg_get_userbyid(datdba)::text FROM pg_catalog.pg_database WHERE \
               datname = $1::text";
    let owner: String = session.value(sql, &[&name]).await?;
    // Revoke the default privileges first: if they were revoked, they are not in the list.
    let mut statements: Vec<String> = ["PUBLIC".to_owned(), identifier(&owner)]
        .map(|grantee| format!("REVOKE ALL ON DATABASE {database} FROM {grantee}"))
        .into();
    let mut failed = Vec::new();
    for privilege in privileges {
        let missing = [Some(&privilege.grantor), privilege.grantee.as_ref()]
            .into_iter()
            .flatten()
            .find(|role| !existing.contains(*role));
        if let Some(missing) = missing {
            failed.push(format!(
                "a privilege on database '{name}' is missing: role '{missing}' does not exist"
            ));
            continue;
        }
        statements.extend(privilege_grant(&database, &owner, privilege)?);
    }
    Ok((statements, failed))
}

async fn create_role(session: &Session, role: &Role) -> Result<()> {
    let name = identifier(&role.name);
    session
        .run(&create_role_statement(role))
        .await
        .with_context(|| format!("cannot create role '{}'", role.name))?;
    if let Some(comment) = &role.comment {
        let comment = literal(comment);
        session.run(&format!("COMMENT ON ROLE {name} IS {comment}")).await?;
    }
    Ok(())
}

async fn list_roles(session: &Session) -> Result<BTreeSet<String>> {
    let names: Vec<String> =
        session.column("SELECT rolname::text FROM pg_catalog.pg_roles", &[]).await?;
    Ok(names.into_iter().collect())
}

/// Returns the statement that grants the privileges which every role has on a new database.
pub(crate) fn grant_default_privileges(name: &str) -> String {
    format!("GRANT CONNECT, TEMPORARY ON DATABASE {} TO PUBLIC", identifier(name))
}

fn create_role_statement(role: &Role) -> String {
    // Only attributes that are not the default: some can be written only by a superuser, even if
    // they say NO, as NOSUPERUSER.
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
        .filter(|(is_set, _)| *is_set)
        .map(|(_, word)| (*word).to_owned())
        .collect();
    if role.connection_limit != -1 {
        words.push(format!("CONNECTION LIMIT {}", role.connection_limit));
    }
    words.extend(role.password.as_ref().map(|password| format!("PASSWORD {}", literal(password))));
    words.extend(role.valid_until.as_ref().map(|time| format!("VALID UNTIL {}", literal(time))));
    format!("CREATE ROLE {} {}", identifier(&role.name), words.join(" "))
}

fn membership_grant(membership: &Membership) -> String {
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

/// Returns the statements that grant one privilege on a database as its original grantor.
fn privilege_grant(database: &str, owner: &str, privilege: &Privilege) -> Result<Vec<String>> {
    if !privilege.privilege.chars().all(|c| c.is_ascii_uppercase() || c == ' ') {
        bail!("'{}' is not a privilege", privilege.privilege);
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

/// Runs `ALTER target SET` for a setting `name=value`.
async fn set(session: &Session, target: &str, setting: &str) -> Result<()> {
    let (name, value) =
        setting.split_once('=').with_context(|| format!("'{setting}' is not a setting"))?;
    // The parts of a name such as `plpgsql.check_asserts`.
    let parts: Vec<String> = name.split('.').map(identifier).collect();
    session
        .run(&format!("ALTER {target} SET {} TO {}", parts.join("."), setting_value(name, value)?))
        .await
}

/// The settings that are lists of names. Each name is quoted separately: if the list was quoted as
/// a whole, the server would take it for one name.
const LISTS: [&str; 6] = [
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
];

/// Quotes the value of a setting.
fn setting_value(name: &str, value: &str) -> Result<String> {
    if !LISTS.contains(&name.to_lowercase().as_str()) || value.is_empty() {
        return Ok(literal(value));
    }
    let names = parse_names(value).with_context(|| format!("'{value}' is not a list of names"))?;
    Ok(names.iter().map(|name| literal(name)).collect::<Vec<_>>().join(", "))
}

/// Parses a list of names such as `"$user", public`. Returns `None` if it is not one.
fn parse_names(text: &str) -> Option<Vec<String>> {
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
    fn the_names_of_a_list_are_quoted_separately() {
        assert_eq!(parse_names("\"$user\", public").unwrap(), ["$user", "public"]);
        assert_eq!(parse_names("\"a\"\"b, c\",d , \"\"").unwrap(), ["a\"b, c", "d", ""]);
        for bad in ["", ",", "a,", "\"a", "a b", "a,,b"] {
            assert_eq!(parse_names(bad), None, "{bad}");
        }
        assert_eq!(
            setting_value("search_path", "\"$user\", public").unwrap(),
            "E'$user', E'public'"
        );
        assert_eq!(setting_value("work_mem", "it's").unwrap(), "E'it''s'");
        assert_eq!(setting_value("search_path", "").unwrap(), "E''");
    }

    #[test]
    fn a_role_is_created_with_its_attributes() {
        let role = Role {
            name: "a\nb\"".to_owned(),
            login: true,
            inherit: true,
            connection_limit: -1,
            ..Role::default()
        };
        assert_eq!(create_role_statement(&role), "CREATE ROLE \"a\nb\"\"\" LOGIN");
        let role = Role {
            superuser: true,
            password: Some("x'\n".to_owned()),
            connection_limit: 3,
            ..role
        };
        assert_eq!(
            create_role_statement(&role),
            "CREATE ROLE \"a\nb\"\"\" SUPERUSER LOGIN CONNECTION LIMIT 3 PASSWORD E'x''\n'"
        );
    }
}
