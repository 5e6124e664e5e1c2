//! A maintenance: found by its name, made or taken over if it is ours, deleted at the end.

use anyhow::{Context, Result, ensure};
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::config::host;
use crate::config::monitoring::ZabbixApi;

use super::super::{Silence, Span};
use super::api::Api;

/// Zabbix floors to the minute, and takes periods of five minutes and more: it begins in the past.
const HEAD_START: i64 = 300;

/// The maintenance of the configured hosts and groups.
pub(in crate::monitoring) struct Maintenance<'a>(pub(in crate::monitoring) &'a ZabbixApi);

#[derive(Deserialize)]
struct Existing {
    maintenanceid: String,
    description: String,
}

#[derive(Deserialize)]
struct Host {
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

/// What the maintenance is for, as ids.
struct Targets {
    hosts: Vec<Host>,
    groups: Vec<Group>,
}

impl Maintenance<'_> {
    fn name(&self) -> String {
        self.0.name.clone().unwrap_or_else(|| format!("gitlab-backup on {}", host::name()))
    }

    /// How a maintenance says that it is ours: by it, and never by the name alone, one is changed
    /// or deleted.
    fn mark(&self) -> String {
        format!("Made by gitlab-backup on {}.", host::name())
    }

    /// The ids of everything named. Fails with the names that Zabbix does not know, or does not let
    /// this token write.
    async fn targets(&self, api: &Api) -> Result<Targets> {
        let mut targets = Targets { hosts: Vec::new(), groups: Vec::new() };
        // An empty filter would mean everything.
        if !self.0.hosts.is_empty() {
            let params = json!({"output": ["hostid", "host"], "filter": {"host": self.0.hosts}, "editable": true});
            targets.hosts = typed(api.call("host.get", params).await?)?;
        }
        if !self.0.groups.is_empty() {
            let params = json!({"output": ["groupid", "name"], "filter": {"name": self.0.groups}, "editable": true});
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
                "Zabbix has no {what} {} that this token may write (the technical name, as it is written there; read-write on its group)",
                names.join(", ")
            );
            Ok(())
        };
        missing(
            "host",
            &self.0.hosts,
            targets.hosts.iter().map(|host| host.host.as_str()).collect(),
        )?;
        missing(
            "host group",
            &self.0.groups,
            targets.groups.iter().map(|group| group.name.as_str()).collect(),
        )?;
        Ok(targets)
    }

    /// The maintenance, if it is there. Fails if it is not ours.
    async fn find(&self, api: &Api) -> Result<Option<String>> {
        let name = self.name();
        let params = json!({"output": ["maintenanceid", "name", "description"], "filter": {"name": [&name]}});
        let Some(found) =
            typed::<Vec<Existing>>(api.call("maintenance.get", params).await?)?.into_iter().next()
        else {
            return Ok(None);
        };
        ensure!(
            found.description.starts_with(&self.mark()),
            "Zabbix has a maintenance '{name}' that gitlab-backup on this host did not make: it is left alone; give ours another name \
             ([monitoring.zabbix] name)"
        );
        Ok(Some(found.maintenanceid))
    }

    async fn create_or_update(&self, span: &Span) -> Result<Option<String>> {
        let api = Api::connect(self.0).await?;
        let targets = self.targets(&api).await?;
        let since = floor(span.from) - HEAD_START;
        let till = floor(span.until) + 60;
        let hosts: Vec<Value> =
            targets.hosts.iter().map(|host| json!({"hostid": host.hostid})).collect();
        let groups: Vec<Value> =
            targets.groups.iter().map(|group| json!({"groupid": group.groupid})).collect();
        let mut params = json!({
            "maintenance_type": u8::from(!self.0.data_collection),
            "description": format!("{} Ends with the backup, or else at the time that it has.", self.mark()),
            "active_since": since,
            "active_till": till,
            "hosts": hosts,
            "groups": groups,
            "timeperiods": [{"timeperiod_type": 0, "start_date": since, "period": till - since}],
        });
        if self.0.data_collection {
            params["tags"] =
                self.0.tags.iter().map(|(name, value)| tag(name, value.as_deref())).collect();
        }
        let method = match self.find(&api).await? {
            Some(id) => {
                params["maintenanceid"] = json!(id);
                "maintenance.update"
            }
            None => {
                params["name"] = json!(self.name());
                "maintenance.create"
            }
        };
        let result = api.call(method, params).await?;
        let id =
            result["maintenanceids"][0].as_str().with_context(|| format!("{method} told no id"))?;
        Ok(Some(id.to_owned()))
    }

    /// Whether every monitored host is in maintenance, as Zabbix itself sees it.
    async fn is_status_1(&self) -> Result<bool> {
        let api = Api::connect(self.0).await?;
        let targets = self.targets(&api).await?;
        let output = json!(["hostid", "host", "maintenance_status"]);
        let mut hosts: Vec<Host> = Vec::new();
        if !targets.hosts.is_empty() {
            let ids: Vec<_> = targets.hosts.iter().map(|host| &host.hostid).collect();
            let params = json!({"output": output, "hostids": ids, "monitored_hosts": true});
            hosts.extend(typed::<Vec<Host>>(api.call("host.get", params).await?)?);
        }
        if !targets.groups.is_empty() {
            let ids: Vec<_> = targets.groups.iter().map(|group| &group.groupid).collect();
            let params = json!({"output": output, "groupids": ids, "monitored_hosts": true});
            hosts.extend(typed::<Vec<Host>>(api.call("host.get", params).await?)?);
        }
        Ok(hosts.iter().all(|host| host.maintenance_status == "1"))
    }

    async fn delete(&self) -> Result<()> {
        let api = Api::connect(self.0).await?;
        if let Some(id) = self.find(&api).await? {
            api.call("maintenance.delete", json!([id])).await?;
        }
        Ok(())
    }

    async fn look(&self) -> Result<String> {
        let api = Api::connect(self.0).await?;
        let targets = self.targets(&api).await?;
        self.find(&api).await?;
        // Nothing is deleted by it: whether Zabbix says that or that it must not even be asked
        // tells the rights of the token's role.
        match api.call("maintenance.delete", json!([])).await {
            Err(error) if format!("{error:#}").contains("No permissions") => return Err(error),
            _ => {}
        }
        Ok(format!(
            "Zabbix {}; {} hosts and {} groups found, which this token may write, as it may maintenances; the name '{}' is free or ours",
            api.version(),
            targets.hosts.len(),
            targets.groups.len(),
            self.name()
        ))
    }
}

impl Silence for Maintenance<'_> {
    fn begin<'a>(
        &'a self,
        span: &'a Span,
        _: Option<&'a str>,
    ) -> LocalBoxFuture<'a, Result<Option<String>>> {
        self.create_or_update(span).boxed_local()
    }

    fn in_effect(&self) -> LocalBoxFuture<'_, Result<bool>> {
        self.is_status_1().boxed_local()
    }

    fn end<'a>(&'a self, _: Option<&'a str>) -> LocalBoxFuture<'a, Result<()>> {
        self.delete().boxed_local()
    }

    fn probe(&self) -> LocalBoxFuture<'_, Result<String>> {
        self.look().boxed_local()
    }
}

fn typed<T: serde::de::DeserializeOwned>(value: Value) -> Result<T> {
    serde_json::from_value(value).context("Zabbix answers something else than it was asked for")
}

fn floor(at: Timestamp) -> i64 {
    at.as_second().div_euclid(60) * 60
}

/// Operators: 0 equals, 2 contains.
fn tag(name: &str, value: Option<&str>) -> Value {
    match value {
        Some(value) => json!({"tag": name, "operator": 0, "value": value}),
        None => json!({"tag": name, "operator": 2, "value": ""}),
    }
}
