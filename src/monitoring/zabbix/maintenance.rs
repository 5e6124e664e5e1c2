//! A maintenance: found by its name, created or updated for a run, deleted at the end. A
//! maintenance that this host has not created is never changed.

use anyhow::{Context, Result, ensure};
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::host::{self, secret};
use crate::values::SecretSource;

use super::super::endpoint::Endpoint;
use super::super::{Secret, Silence, Span, System};
use super::api::Api;

/// The credential with the API token.
const CREDENTIAL: &str = "zabbix.token";
/// Seconds by which a maintenance begins in the past: Zabbix rounds down to the minute, and a
/// period must have at least five minutes.
const HEAD_START: i64 = 300;

/// The maintenance of the configured hosts and groups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Maintenance {
    /// `…/api_jsonrpc.php`.
    pub endpoint: Endpoint,
    /// An API token.
    pub token: SecretSource,
    /// Technical names of hosts. There is at least one host or group.
    pub hosts: Vec<String>,
    /// Names of host groups.
    pub groups: Vec<String>,
    /// Whether Zabbix continues to collect data.
    pub data_collection: bool,
    /// Problem tags; without a value, a tag matches any.
    pub tags: Vec<(String, Option<String>)>,
    /// The name of the maintenance; none for one that contains the host's name.
    pub name: Option<String>,
}

#[derive(Deserialize)]
struct Existing {
    maintenanceid: String,
    description: String,
}

#[derive(Deserialize)]
struct ZabbixHost {
    hostid: String,
    host: String,
    #[serde(default)]
    maintenance_status: String,
}

#[derive(Deserialize)]
struct Group {
    groupid: String,
    name: String,
}

/// The hosts and groups of the maintenance, as Zabbix knows them.
struct Targets {
    hosts: Vec<ZabbixHost>,
    groups: Vec<Group>,
}

impl Maintenance {
    /// Connects to the API.
    async fn connect(&self) -> Result<Api> {
        let token = secret::read(&self.token, CREDENTIAL)?;
        Api::connect(&self.endpoint, token).await
    }

    /// The name of the maintenance.
    fn title(&self) -> String {
        self.name.clone().unwrap_or_else(|| format!("gitlab-backup on {}", host::name()))
    }

    /// The start of the description of a maintenance that this host has created. One without it is
    /// never changed or deleted, whatever its name.
    fn mark(&self) -> String {
        format!("Made by gitlab-backup on {}.", host::name())
    }

    /// Looks up the configured names. Fails with the names that Zabbix does not know or that this
    /// token must not write.
    async fn targets(&self, api: &Api) -> Result<Targets> {
        let mut targets = Targets { hosts: Vec::new(), groups: Vec::new() };
        // To Zabbix, an empty filter matches everything.
        if !self.hosts.is_empty() {
            let params = json!({
                "output": ["hostid", "host"],
                "filter": {"host": self.hosts},
                "editable": true,
            });
            targets.hosts = typed(api.call("host.get", params).await?)?;
        }
        if !self.groups.is_empty() {
            let params = json!({
                "output": ["groupid", "name"],
                "filter": {"name": self.groups},
                "editable": true,
            });
            targets.groups = typed(api.call("hostgroup.get", params).await?)?;
        }
        let missing = |what: &str, wanted: &[String], found: Vec<&str>| {
            let names: Vec<_> = wanted
                .iter()
                .filter(|name| !found.contains(&name.as_str()))
                .map(|name| format!("'{name}'"))
                .collect();
            ensure!(
                names.is_empty(),
                "Zabbix has no {what} {} that this token may write (the technical name, as it is \
                 written there; read-write on its group)",
                names.join(", ")
            );
            Ok(())
        };
        missing(
            "host",
            &self.hosts,
            targets.hosts.iter().map(|host| host.host.as_str()).collect(),
        )?;
        missing(
            "host group",
            &self.groups,
            targets.groups.iter().map(|group| group.name.as_str()).collect(),
        )?;
        Ok(targets)
    }

    /// The id of the maintenance, if it exists. Fails if this host has not created it.
    async fn find(&self, api: &Api) -> Result<Option<String>> {
        let name = self.title();
        let params = json!({
            "output": ["maintenanceid", "name", "description"],
            "filter": {"name": [&name]},
        });
        let Some(found) =
            typed::<Vec<Existing>>(api.call("maintenance.get", params).await?)?.into_iter().next()
        else {
            return Ok(None);
        };
        ensure!(
            found.description.starts_with(&self.mark()),
            "Zabbix has a maintenance '{name}' that gitlab-backup on this host did not make: it \
             is left alone; choose another name ([monitoring.zabbix] name)"
        );
        Ok(Some(found.maintenanceid))
    }

    /// Creates the maintenance, or extends it. Returns its id.
    async fn create_or_update(&self, span: &Span) -> Result<Option<String>> {
        let api = self.connect().await?;
        let targets = self.targets(&api).await?;
        let since = floor_to_minute(span.from) - HEAD_START;
        let till = floor_to_minute(span.until) + 60;
        let hosts: Vec<Value> =
            targets.hosts.iter().map(|host| json!({"hostid": host.hostid})).collect();
        let groups: Vec<Value> =
            targets.groups.iter().map(|group| json!({"groupid": group.groupid})).collect();
        let mut params = json!({
            "maintenance_type": u8::from(!self.data_collection),
            "description": format!("{} Ends with the backup, or else at the time that it \
                                    has.", self.mark()),
            "active_since": since,
            "active_till": till,
            "hosts": hosts,
            "groups": groups,
            "timeperiods": [{"timeperiod_type": 0, "start_date": since, "period": till - since}],
        });
        if self.data_collection {
            params["tags"] =
                self.tags.iter().map(|(name, value)| tag(name, value.as_deref())).collect();
        }
        let method = match self.find(&api).await? {
            Some(id) => {
                params["maintenanceid"] = json!(id);
                "maintenance.update"
            }
            None => {
                params["name"] = json!(self.title());
                "maintenance.create"
            }
        };
        let result = api.call(method, params).await?;
        let id = result["maintenanceids"][0]
            .as_str()
            .with_context(|| format!("the answer to {method} has no id"))?;
        Ok(Some(id.to_owned()))
    }

    /// Whether every monitored host has the status "in maintenance" in Zabbix.
    async fn is_in_effect(&self) -> Result<bool> {
        let api = self.connect().await?;
        let targets = self.targets(&api).await?;
        let mut hosts: Vec<ZabbixHost> = Vec::new();
        for (key, ids) in [
            ("hostids", targets.hosts.iter().map(|host| &host.hostid).collect::<Vec<_>>()),
            ("groupids", targets.groups.iter().map(|group| &group.groupid).collect()),
        ] {
            // To Zabbix, an empty filter matches everything.
            if ids.is_empty() {
                continue;
            }
            let output = ["hostid", "host", "maintenance_status"];
            let params = json!({"output": output, key: ids, "monitored_hosts": true});
            hosts.extend(typed::<Vec<ZabbixHost>>(api.call("host.get", params).await?)?);
        }
        Ok(hosts.iter().all(|host| host.maintenance_status == "1"))
    }

    /// Deletes the maintenance, if it exists.
    async fn delete(&self) -> Result<()> {
        let api = self.connect().await?;
        if let Some(id) = self.find(&api).await? {
            api.call("maintenance.delete", json!([id])).await?;
        }
        Ok(())
    }

    /// Checks version, names and rights, without changing anything.
    async fn probe_api(&self) -> Result<String> {
        let api = self.connect().await?;
        let targets = self.targets(&api).await?;
        self.find(&api).await?;
        // An empty list deletes nothing. The answer only shows whether the token's role may delete
        // maintenances.
        match api.call("maintenance.delete", json!([])).await {
            Err(error) if format!("{error:#}").contains("No permissions") => return Err(error),
            _ => {}
        }
        Ok(format!(
            "Zabbix {}; {} hosts and {} groups found; the token may write them and maintenances; \
             the name '{}' is available",
            api.version(),
            targets.hosts.len(),
            targets.groups.len(),
            self.title()
        ))
    }
}

impl System for Maintenance {
    fn name(&self) -> &'static str {
        "zabbix"
    }

    fn secrets(&self) -> Vec<Secret<'_>> {
        vec![(CREDENTIAL, &self.token)]
    }

    fn probe(&self) -> LocalBoxFuture<'_, Result<String>> {
        self.probe_api().boxed_local()
    }
}

impl Silence for Maintenance {
    fn begin<'a>(
        &'a self,
        span: &'a Span,
        _: Option<&'a str>,
    ) -> LocalBoxFuture<'a, Result<Option<String>>> {
        self.create_or_update(span).boxed_local()
    }

    fn in_effect(&self) -> LocalBoxFuture<'_, Result<bool>> {
        self.is_in_effect().boxed_local()
    }

    fn end<'a>(&'a self, _: Option<&'a str>) -> LocalBoxFuture<'a, Result<()>> {
        self.delete().boxed_local()
    }
}

/// Converts the result of a call.
fn typed<T: serde::de::DeserializeOwned>(value: Value) -> Result<T> {
    serde_json::from_value(value).context("the answer of Zabbix has an unexpected format")
}

/// Seconds since the epoch, rounded down to the minute.
fn floor_to_minute(at: Timestamp) -> i64 {
    at.as_second().div_euclid(60) * 60
}

/// A problem tag for the API, whose operator 0 is "equals" and 2 is "contains".
fn tag(name: &str, value: Option<&str>) -> Value {
    match value {
        Some(value) => json!({"tag": name, "operator": 0, "value": value}),
        None => json!({"tag": name, "operator": 2, "value": ""}),
    }
}
