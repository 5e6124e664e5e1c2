//! Where the server is, and as which role to connect.
//!
//! Through a socket without a password (`peer` in pg_hba.conf), the server authenticates the OS
//! user of the client. If this process is root, sessions are opened and programs run as the OS user
//! that the configuration names.

use std::sync::atomic::AtomicU32;

use anyhow::{Context, Result};
use nix::unistd::User;

use crate::accounts;
use crate::config::Postgresql;
use crate::host::identity::Account;
use crate::host::{remedy, user};

/// The `application_name` of most sessions.
const APPLICATION: &str = "gitlab-backup";

/// One role of one server.
pub(crate) struct Login {
    pub config: Postgresql,
    pub password: Option<String>,
    /// The account to connect as; none if this process is not root.
    pub account: Option<Account>,
    /// The `application_name` of the sessions.
    pub application: &'static str,
    /// The newest of the levels of settings (see `session.rs`) to try: `u32::MAX` before the first
    /// connection, then the one that the server accepted.
    pub level: AtomicU32,
}

impl Login {
    /// Returns the login of the role that `config` names, with this password instead of the
    /// configured one.
    ///
    /// # Errors
    /// If this process is root, and the OS user that `config` names does not exist.
    pub fn new(config: Postgresql, password: Option<String>) -> Result<Self> {
        let user =
            user::to_become(&config.os_user).with_context(|| match config.os_user.as_str() {
                accounts::LOADER => format!(
                    "the account that loads dumps is missing: '{}' creates it",
                    remedy::install()
                ),
                _ => "correct [postgresql] os-user".to_owned(),
            })?;
        let account =
            user.map(|user: User| Account { uid: user.uid.as_raw(), gid: user.gid.as_raw() });
        Ok(Self {
            config,
            password,
            account,
            application: APPLICATION,
            level: AtomicU32::new(u32::MAX),
        })
    }

    /// Whether the server is reached through a socket of this host.
    pub fn by_socket(&self) -> bool {
        self.config.by_socket()
    }

    /// Describes the server, `database` and the role, for messages.
    pub fn describe(&self, database: &str) -> String {
        format!(
            "PostgreSQL at {} port {}, database '{database}' as '{}'",
            self.config.host, self.config.port, self.config.user
        )
    }
}
