//! `[monitoring]`: who is told of a run. What a silence needs to be ended again can be written down
//! as it is: it names secrets, it holds none.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::values::{SecretSource, Timespan};

/// `[monitoring]`
#[derive(Debug, Clone)]
pub struct Monitoring {
    /// What becomes of a run whose silence cannot be had.
    pub on_error: OnError,
    /// How long silences last after the run, so that the monitoring sees GitLab well again first.
    pub grace: Timespan,
    /// How long a run waits for its silences to take effect.
    pub wait: Timespan,
    /// What is kept silent, or is told that there is a reason for silence.
    pub silences: Vec<SilenceConfig>,
    /// Who hears how a run went.
    pub reports: Vec<ReportConfig>,
}

/// `[monitoring] on-error`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    /// The backup matters more.
    Warn,
    /// No silence, no backup: the run ends before GitLab is touched.
    Abort,
}

/// One system that can be kept silent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SilenceConfig {
    /// A maintenance, by Zabbix' API.
    Zabbix(ZabbixApi),
    /// 1 and 0 in items of Zabbix.
    ZabbixTrapper(TrapperSilence),
    /// A silence in Alertmanager.
    Alertmanager(Alertmanager),
    /// A message to GitLab's users.
    Broadcast(Broadcast),
}

/// One way to tell how a run went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReportConfig {
    /// Items of Zabbix.
    ZabbixTrapper(Trapper),
    /// Pings as healthchecks.io has them.
    Healthchecks(Hook),
    /// A file for the node exporter.
    Prometheus(PathBuf),
    /// The report as JSON.
    Webhook(Hook),
    /// A command, the report on its standard input.
    Command {
        /// argv, the program absolute.
        argv: Vec<String>,
        /// How long it may take.
        timeout: Timespan,
    },
}

/// An HTTP server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// `http://` or `https://`, without a user.
    pub url: String,
    /// Certificates that are trusted besides the system's.
    pub ca_file: Option<PathBuf>,
    /// `http://`, `https://` or `socks5://`.
    pub proxy: Option<String>,
}

/// `[monitoring.zabbix]`, the API's half.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZabbixApi {
    /// `…/api_jsonrpc.php`.
    pub endpoint: Endpoint,
    /// An API token.
    pub token: SecretSource,
    /// Technical names; with `groups` at least one.
    pub hosts: Vec<String>,
    /// Names of host groups.
    pub groups: Vec<String>,
    /// Whether Zabbix goes on collecting data.
    pub data_collection: bool,
    /// Problem tags, with a value or any.
    pub tags: Vec<(String, Option<String>)>,
    /// The maintenance's name, if it is not to be named after the host.
    pub name: Option<String>,
}

/// `[monitoring.zabbix]`, the trapper's half.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trapper {
    /// Every one is told; of the nodes of a cluster the first that answers.
    pub servers: Vec<Vec<Address>>,
    /// The host in Zabbix that the items belong to.
    pub host: String,
    /// Encrypted, then `zabbix_sender` does the sending.
    pub tls: Option<TrapperTls>,
}

/// The items that are 1 while there is maintenance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrapperSilence {
    /// Where they are.
    pub trapper: Trapper,
    /// Their keys.
    pub items: Vec<String>,
}

/// What `zabbix_sender` is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TrapperTls {
    /// A key that both sides know.
    Psk {
        /// Its name, not secret.
        identity: String,
        /// The key.
        key: SecretSource,
    },
    /// A certificate.
    Certificate {
        /// Who signed the server's.
        ca_file: PathBuf,
        /// Ours.
        certificate_file: PathBuf,
        /// Its key.
        key: SecretSource,
    },
}

/// `HOST[:PORT]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// Name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// `[monitoring.alertmanager]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alertmanager {
    /// Without `/api/v2`.
    pub endpoint: Endpoint,
    /// A bearer token, or the password of `username`.
    pub secret: Option<SecretSource>,
    /// For basic authentication.
    pub username: Option<String>,
    /// What is silenced: all must match.
    pub matchers: Vec<Matcher>,
}

/// `NAME=VALUE`, `NAME!=VALUE`, `NAME=~REGEX` or `NAME!~REGEX`; serialised as the API has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Matcher {
    /// The label.
    pub name: String,
    /// What it is compared with.
    pub value: String,
    /// `~`
    pub is_regex: bool,
    /// Not `!`.
    pub is_equal: bool,
}

/// `[monitoring.broadcast]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Broadcast {
    /// GitLab's own URL, without `/api/v4`.
    pub endpoint: Endpoint,
    /// The token of an administrator, scope `api`.
    pub token: SecretSource,
    /// `{time}` and `{downtime}` are filled in.
    pub message: String,
}

/// Where a report goes over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// Its URL.
    pub url: HookUrl,
    /// Sent as a bearer token.
    pub token: Option<SecretSource>,
    /// Certificates that are trusted besides the system's.
    pub ca_file: Option<PathBuf>,
    /// `http://`, `https://` or `socks5://`.
    pub proxy: Option<String>,
}

/// Some URLs are secrets: whoever knows them may ping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HookUrl {
    /// In the configuration.
    Plain(String),
    /// Somewhere else.
    Secret(SecretSource),
}

impl SilenceConfig {
    /// What messages and records call it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Zabbix(_) => "zabbix",
            Self::ZabbixTrapper(_) => "zabbix-trapper",
            Self::Alertmanager(_) => "alertmanager",
            Self::Broadcast(_) => "broadcast",
        }
    }

    /// Its secrets, each with the name of the credential that units have it as.
    pub fn secrets(&self) -> Vec<(&'static str, &SecretSource)> {
        match self {
            Self::Zabbix(api) => vec![(credential::ZABBIX_TOKEN, &api.token)],
            Self::ZabbixTrapper(silence) => silence.trapper.secrets(),
            Self::Alertmanager(alertmanager) => alertmanager
                .secret
                .iter()
                .map(|secret| (credential::ALERTMANAGER, secret))
                .collect(),
            Self::Broadcast(broadcast) => vec![(credential::BROADCAST_TOKEN, &broadcast.token)],
        }
    }
}

impl ReportConfig {
    /// What messages and records call it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::ZabbixTrapper(_) => "zabbix-trapper",
            Self::Healthchecks(_) => "healthchecks",
            Self::Prometheus(_) => "prometheus",
            Self::Webhook(_) => "webhook",
            Self::Command { .. } => "command",
        }
    }

    /// Its secrets, each with the name of the credential that units have it as.
    pub fn secrets(&self) -> Vec<(&'static str, &SecretSource)> {
        match self {
            Self::ZabbixTrapper(trapper) => trapper.secrets(),
            Self::Healthchecks(hook) => {
                hook.secrets(credential::HEALTHCHECKS_URL, credential::HEALTHCHECKS_TOKEN)
            }
            Self::Webhook(hook) => hook.secrets(credential::WEBHOOK_URL, credential::WEBHOOK_TOKEN),
            Self::Prometheus(_) | Self::Command { .. } => Vec::new(),
        }
    }
}

impl Trapper {
    fn secrets(&self) -> Vec<(&'static str, &SecretSource)> {
        match &self.tls {
            Some(TrapperTls::Psk { key, .. } | TrapperTls::Certificate { key, .. }) => {
                vec![(credential::ZABBIX_KEY, key)]
            }
            None => Vec::new(),
        }
    }
}

impl Hook {
    fn secrets(
        &self,
        url: &'static str,
        token: &'static str,
    ) -> Vec<(&'static str, &SecretSource)> {
        let place = match &self.url {
            HookUrl::Secret(source) => Some((url, source)),
            HookUrl::Plain(_) => None,
        };
        place.into_iter().chain(self.token.iter().map(|source| (token, source))).collect()
    }
}

/// The names under which units see the secrets of the monitoring.
pub mod credential {
    /// Zabbix' API token.
    pub const ZABBIX_TOKEN: &str = "zabbix.token";
    /// The pre-shared or private key of the trapper connection.
    pub const ZABBIX_KEY: &str = "zabbix.key";
    /// Alertmanager's bearer token or password.
    pub const ALERTMANAGER: &str = "alertmanager.secret";
    /// GitLab's API token.
    pub const BROADCAST_TOKEN: &str = "broadcast.token";
    /// The ping URL.
    pub const HEALTHCHECKS_URL: &str = "healthchecks.url";
    /// The bearer token that goes with a ping.
    pub const HEALTHCHECKS_TOKEN: &str = "healthchecks.token";
    /// The webhook's URL.
    pub const WEBHOOK_URL: &str = "webhook.url";
    /// The webhook's bearer token.
    pub const WEBHOOK_TOKEN: &str = "webhook.token";
}
