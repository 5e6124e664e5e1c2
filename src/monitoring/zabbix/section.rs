//! The keys of `[monitoring.zabbix]` and their checks.

use serde::Deserialize;
use toml::Spanned;

use crate::schema::rules::{self, Refusal};
use crate::schema::{Checker, Field, List, Section};

use super::super::endpoint::{Endpoint, check_token};
use super::super::{Monitoring, ReportConfig, SilenceConfig};
use super::trapper::{Trapper, TrapperTls, parse_server};
use super::{Maintenance, MaintenanceItems, RunItems};

/// The items that are 1 during maintenance, unless `trapper-items` names others: those of the
/// script of 2015, with the units of today's GitLab.
const ITEMS: [&str; 2] = ["sst.maintenance.status[puma]", "sst.maintenance.status[sidekiq]"];

/// `[monitoring.zabbix]` as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(in crate::monitoring) struct Raw {
    api: Field<String>,
    token_file: Field<String>,
    token_credential: Field<String>,
    ca_file: Field<String>,
    proxy: Field<String>,
    hosts: List,
    groups: List,
    data_collection: Field<bool>,
    tags: List,
    name: Field<String>,
    trapper: List,
    trapper_host: Field<String>,
    trapper_items: List,
    trapper_report: Field<bool>,
    psk_identity: Field<String>,
    psk_file: Field<String>,
    psk_credential: Field<String>,
    tls_ca_file: Field<String>,
    tls_certificate_file: Field<String>,
    tls_key_file: Field<String>,
    tls_key_credential: Field<String>,
}

/// Checks the section: the API, the trapper, or both.
pub(in crate::monitoring) fn check(
    checker: &mut Checker,
    section: &Section,
    raw: Raw,
    monitoring: &mut Monitoring,
) {
    if raw.api.is_none() && raw.trapper.is_none() {
        let refusal = Refusal::new(
            "is missing, and so is trapper",
            "api (the URL of api_jsonrpc.php), trapper (servers), or both",
        );
        checker.refuse(&section.place("api"), refusal);
    }
    let hosts = check_names(checker, section, "hosts", &raw.hosts);
    if raw.api.is_some() {
        let maintenance = check_maintenance(checker, section, &raw, &hosts);
        monitoring.silences.push(SilenceConfig::Zabbix(maintenance));
    } else {
        refuse_without_api(checker, section, &raw);
    }
    if raw.trapper.is_none() {
        refuse_without_trapper(checker, section, &raw);
        return;
    }
    let collects = raw.data_collection.as_ref().filter(|_| raw.api.is_some());
    if let Some(field) = collects.filter(|field| !*field.get_ref()) {
        let message =
            "contradicts trapper: Zabbix silently drops the values of a host in such a maintenance";
        checker.refuse(
            &section.field("data-collection", Some(field)),
            Refusal::new(message, "data-collection = true, or no trapper"),
        );
    }
    let trapper = check_trapper(checker, section, &raw, &hosts);
    let items: Vec<String> = match &raw.trapper_items {
        Some(_) => checker
            .list(section, "trapper-items", &raw.trapper_items, |key| zabbix_name(key))
            .unwrap_or_default()
            .into_iter()
            .map(|(_, key)| key)
            .collect(),
        None => ITEMS.map(str::to_owned).to_vec(),
    };
    if !items.is_empty() {
        let items = MaintenanceItems { trapper: trapper.clone(), items };
        monitoring.silences.push(SilenceConfig::ZabbixTrapper(items));
    }
    if raw.trapper_report.is_none_or(|field| field.into_inner()) {
        monitoring.reports.push(ReportConfig::ZabbixTrapper(RunItems { trapper }));
    }
}

/// Refuses the keys that only the API uses.
fn refuse_without_api(checker: &mut Checker, section: &Section, raw: &Raw) {
    let mut refuse = |name, field: &Field<String>| {
        refuse_unused(checker, section, name, field.as_ref(), "api");
    };
    refuse("token-file", &raw.token_file);
    refuse("token-credential", &raw.token_credential);
    refuse("ca-file", &raw.ca_file);
    refuse("proxy", &raw.proxy);
    refuse("name", &raw.name);
    refuse_unused(checker, section, "groups", raw.groups.as_ref(), "api");
    refuse_unused(checker, section, "data-collection", raw.data_collection.as_ref(), "api");
    refuse_unused(checker, section, "tags", raw.tags.as_ref(), "api");
}

/// Refuses the keys that only the trapper uses.
fn refuse_without_trapper(checker: &mut Checker, section: &Section, raw: &Raw) {
    let mut refuse = |name, field: &Field<String>| {
        refuse_unused(checker, section, name, field.as_ref(), "trapper");
    };
    refuse("trapper-host", &raw.trapper_host);
    refuse("psk-identity", &raw.psk_identity);
    refuse("psk-file", &raw.psk_file);
    refuse("psk-credential", &raw.psk_credential);
    refuse("tls-ca-file", &raw.tls_ca_file);
    refuse("tls-certificate-file", &raw.tls_certificate_file);
    refuse("tls-key-file", &raw.tls_key_file);
    refuse("tls-key-credential", &raw.tls_key_credential);
    refuse_unused(checker, section, "trapper-items", raw.trapper_items.as_ref(), "trapper");
    refuse_unused(checker, section, "trapper-report", raw.trapper_report.as_ref(), "trapper");
}

/// Refuses a key that has no effect without the key `lacking`.
fn refuse_unused<T>(
    checker: &mut Checker,
    section: &Section,
    name: &str,
    field: Option<&Spanned<T>>,
    lacking: &str,
) {
    if let Some(field) = field {
        let refusal = Refusal::new(
            format!("has no effect without {lacking}"),
            format!("{lacking}, or no {name}"),
        );
        checker.refuse(&section.field(name, Some(field)), refusal);
    }
}

/// The keys of the API.
fn check_maintenance(
    checker: &mut Checker,
    section: &Section,
    raw: &Raw,
    hosts: &[String],
) -> Maintenance {
    let endpoint = Endpoint::check(checker, section, ("api", &raw.api), &raw.ca_file, &raw.proxy);
    let groups = check_names(checker, section, "groups", &raw.groups);
    if raw.hosts.is_none() && raw.groups.is_none() {
        let refusal = Refusal::new(
            "is missing, and so is groups",
            "the names of hosts in Zabbix, of host groups, or both",
        );
        checker.refuse(&section.place("hosts"), refusal);
    }
    let data_collection = raw.data_collection.as_ref().is_none_or(|field| *field.get_ref());
    let tags = checker.list(section, "tags", &raw.tags, |text| tag(text)).unwrap_or_default();
    if let (false, Some(field)) = (data_collection, &raw.tags) {
        let refusal = Refusal::new(
            "contradicts data-collection = false: such a maintenance is for all problems",
            "one of the two",
        );
        checker.refuse(&section.field("tags", Some(field)), refusal);
    }
    Maintenance {
        endpoint,
        token: check_token(checker, section, &raw.token_file, &raw.token_credential),
        hosts: hosts.to_vec(),
        groups,
        data_collection,
        tags: tags.into_iter().map(|(_, tag)| tag).collect(),
        name: checker.value(section, "name", raw.name.as_ref(), |name| maintenance_name(name)),
    }
}

/// A name that a maintenance can have.
fn maintenance_name(name: &str) -> Result<String, Refusal> {
    let name = zabbix_name(name)?;
    match name.chars().count() <= 128 {
        true => Ok(name),
        false => {
            Err(Refusal::new("is too long for the name of a maintenance", "at most 128 characters"))
        }
    }
}

/// The names of hosts or groups. An empty list is refused: to Zabbix, it means all of them.
fn check_names(checker: &mut Checker, section: &Section, name: &str, list: &List) -> Vec<String> {
    if let Some(field) = list.as_ref().filter(|list| list.get_ref().is_empty()) {
        checker.refuse(
            &section.field(name, Some(field)),
            Refusal::new("is empty", format!("names, or no {name}")),
        );
    }
    let names = checker.list(section, name, list, |text| zabbix_name(text)).unwrap_or_default();
    names.into_iter().map(|(_, name)| name).collect()
}

/// The keys of the trapper.
fn check_trapper(checker: &mut Checker, section: &Section, raw: &Raw, hosts: &[String]) -> Trapper {
    let servers = checker
        .list(section, "trapper", &raw.trapper, |text| parse_server(text))
        .unwrap_or_default();
    if let Some(field) = raw.trapper.as_ref().filter(|list| list.get_ref().is_empty()) {
        checker.refuse(
            &section.field("trapper", Some(field)),
            Refusal::new("is empty", "servers or proxies, like [\"zabbix.example.com:10051\"]"),
        );
    }
    let given =
        checker.value(section, "trapper-host", raw.trapper_host.as_ref(), |name| zabbix_name(name));
    let host = given.or_else(|| hosts.first().cloned());
    if host.is_none() && raw.trapper_host.is_none() {
        checker.refuse(
            &section.place("trapper-host"),
            Refusal::new("is missing, and so is hosts", "the host in Zabbix that has the items"),
        );
    }
    Trapper {
        servers: servers.into_iter().map(|(_, nodes)| nodes).collect(),
        host: host.unwrap_or_default(),
        tls: check_tls(checker, section, raw),
    }
}

/// A pre-shared key, or a certificate, or no encryption.
fn check_tls(checker: &mut Checker, section: &Section, raw: &Raw) -> Option<TrapperTls> {
    let identity =
        checker.value(section, "psk-identity", raw.psk_identity.as_ref(), |name| zabbix_name(name));
    let psk = checker.named_secret(section, "psk", &raw.psk_file, &raw.psk_credential);
    let ca_file =
        checker.value(section, "tls-ca-file", raw.tls_ca_file.as_ref(), |path| rules::path(path));
    let certificate =
        checker.value(section, "tls-certificate-file", raw.tls_certificate_file.as_ref(), |path| {
            rules::path(path)
        });
    let key = checker.named_secret(section, "tls-key", &raw.tls_key_file, &raw.tls_key_credential);
    match (identity, psk, ca_file, certificate, key) {
        (None, None, None, None, None) => None,
        (Some(identity), Some(key), None, None, None) => Some(TrapperTls::Psk { identity, key }),
        (None, None, Some(ca_file), Some(certificate_file), Some(key)) => {
            Some(TrapperTls::Certificate { ca_file, certificate_file, key })
        }
        _ => {
            let allowed =
                "psk-identity and psk-file, or tls-ca-file, tls-certificate-file and tls-key-file";
            let first =
                raw.psk_identity.as_ref().or(raw.psk_file.as_ref()).or(raw.tls_ca_file.as_ref());
            checker.refuse(
                &section.field("psk-identity", first),
                Refusal::new("is half of what an encrypted trapper needs", allowed),
            );
            None
        }
    }
}

/// The name of a host, a group or a maintenance in Zabbix, or the key of an item.
fn zabbix_name(text: &str) -> Result<String, Refusal> {
    let text = rules::one_line(text)?;
    match text.chars().count() <= 255 && text.trim() == text {
        true => Ok(text),
        false => Err(Refusal::new(
            format!("'{text}' is not a name in Zabbix"),
            "at most 255 characters, neither the first nor the last a space",
        )),
    }
}

/// A problem tag: `NAME=VALUE`, or `NAME` for any value.
fn tag(text: &str) -> Result<(String, Option<String>), Refusal> {
    let text = rules::one_line(text)?;
    let (name, value) =
        text.split_once('=').map_or((text.as_str(), None), |(name, value)| (name, Some(value)));
    match name.trim().is_empty() {
        true => {
            Err(Refusal::new(format!("'{text}' has no name"), "NAME=VALUE, or NAME for any value"))
        }
        false => Ok((name.trim().to_owned(), value.map(|value| value.trim().to_owned()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_may_have_a_value() {
        assert_eq!(tag("scope=backup").unwrap(), ("scope".to_owned(), Some("backup".to_owned())));
        assert_eq!(tag("scope").unwrap(), ("scope".to_owned(), None));
        assert!(tag("=x").is_err() && tag(" ").is_err());
    }
}
