//! Who a server is asked as.
//!
//! By a socket without a password a server goes by the user of the process behind it. Root is never
//! that: a session is opened, and a program runs, as the OS user that the configuration names.

use std::sync::atomic::AtomicU32;

use anyhow::{Context, Result};
use nix::unistd::User;

use crate::accounts;
use crate::config::Postgresql;
use crate::host::identity::Account;
use crate::host::{remedy, user};

/// What the server shows our sessions as.
const APPLICATION: &str = "gitlab-backup";

/// One role of one server.
pub(crate) struct Login {
    pub config: Postgresql,
    pub password: Option<String>,
    /// Whom root becomes.
    pub account: Option<Account>,
    /// What the server shows our sessions as.
    pub application: &'static str,
    /// What of our settings the server knows, as far as is known.
    pub level: AtomicU32,
}

impl Login {
    /// The role that `config` names, by this password and no other.
    ///
    /// # Errors
    /// If this is root, and there is no such OS user as `config` names.
    pub fn new(config: Postgresql, password: Option<String>) -> Result<Self> {
        let user =
            user::to_become(&config.os_user).with_context(|| match config.os_user.as_str() {
                accounts::LOADER => format!(
                    "what is restored is loaded with an account of its own: '{}' makes it",
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

    /// Whether it is reached by a socket of this host.
    pub fn by_socket(&self) -> bool {
        self.config.by_socket()
    }

    /// For messages.
    pub fn place(&self, database: &str) -> String {
        format!(
            "PostgreSQL at {} port {}, database '{database}' as '{}'",
            self.config.host, self.config.port, self.config.user
        )
    }
}
