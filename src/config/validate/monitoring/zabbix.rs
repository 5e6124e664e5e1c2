//! `[monitoring.zabbix]`: the API, the trapper, or both.

use super::super::rules::{self as values, Refusal};
use super::super::{Checker, Section};
use super::{endpoint, pointless, rules, token};
use crate::config::monitoring::{
    ReportConfig, SilenceConfig, Trapper, TrapperSilence, TrapperTls, ZabbixApi,
};
use crate::config::raw;

/// Those of the 2015 script, with the units that GitLab has today.
const ITEMS: [&str; 2] = ["sst.maintenance.status[puma]", "sst.maintenance.status[sidekiq]"];

pub(super) fn check(
    checker: &mut Checker,
    section: &Section,
    raw: raw::Zabbix,
    silences: &mut Vec<SilenceConfig>,
    reports: &mut Vec<ReportConfig>,
) {
    if raw.api.is_none() && raw.trapper.is_none() {
        let refusal = Refusal::new(
            "is missing, and so is trapper",
            "api (the URL of api_jsonrpc.php), trapper (servers), or both",
        );
        checker.refuse(&section.place("api"), refusal);
    }
    let hosts = names(checker, section, "hosts", &raw.hosts);
    match raw.api {
        Some(_) => silences.push(SilenceConfig::Zabbix(api(checker, section, &raw, &hosts))),
        None => {
            for (name, field) in [
                ("token-file", &raw.token_file),
                ("token-credential", &raw.token_credential),
                ("name", &raw.name),
            ] {
                pointless(checker, section, name, field.as_ref(), "api");
            }
            pointless(checker, section, "groups", raw.groups.as_ref(), "api");
            pointless(checker, section, "tags", raw.tags.as_ref(), "api");
        }
    }
    if raw.trapper.is_none() {
        pointless(checker, section, "trapper-host", raw.trapper_host.as_ref(), "trapper");
        pointless(checker, section, "trapper-items", raw.trapper_items.as_ref(), "trapper");
        pointless(checker, section, "trapper-report", raw.trapper_report.as_ref(), "trapper");
        pointless(checker, section, "psk-identity", raw.psk_identity.as_ref(), "trapper");
        pointless(
            checker,
            section,
            "tls-certificate-file",
            raw.tls_certificate_file.as_ref(),
            "trapper",
        );
        return;
    }
    if let Some(field) = raw.data_collection.as_ref().filter(|field| !*field.get_ref()) {
        let message = "contradicts trapper: Zabbix drops the values of a host in such a maintenance without a word";
        checker.refuse(
            &section.field("data-collection", Some(field)),
            Refusal::new(message, "data-collection = true, or no trapper"),
        );
    }
    let trapper = trapper(checker, section, &raw, &hosts);
    let items = match &raw.trapper_items {
        Some(_) => checker
            .list(section, "trapper-items", &raw.trapper_items, |key| rules::zabbix_name(key))
            .unwrap_or_default(),
        None => {
            ITEMS.iter().map(|key| (section.place("trapper-items"), (*key).to_owned())).collect()
        }
    };
    if !items.is_empty() {
        let items = items.into_iter().map(|(_, key)| key).collect();
        silences
            .push(SilenceConfig::ZabbixTrapper(TrapperSilence { trapper: trapper.clone(), items }));
    }
    if raw.trapper_report.is_none_or(|field| field.into_inner()) {
        reports.push(ReportConfig::ZabbixTrapper(trapper));
    }
}

fn api(checker: &mut Checker, section: &Section, raw: &raw::Zabbix, hosts: &[String]) -> ZabbixApi {
    let endpoint = endpoint(checker, section, ("api", &raw.api), (&raw.ca_file, &raw.proxy));
    let groups = names(checker, section, "groups", &raw.groups);
    if raw.hosts.is_none() && raw.groups.is_none() {
        let refusal = Refusal::new(
            "is missing, and so is groups",
            "the names of hosts in Zabbix, of host groups, or both",
        );
        checker.refuse(&section.place("hosts"), refusal);
    }
    let data_collection = raw.data_collection.as_ref().is_none_or(|field| *field.get_ref());
    let tags =
        checker.list(section, "tags", &raw.tags, |text| rules::tag(text)).unwrap_or_default();
    if let (false, Some(field)) = (data_collection, &raw.tags) {
        let refusal = Refusal::new(
            "contradicts data-collection = false: such a maintenance is for all problems",
            "one of the two",
        );
        checker.refuse(&section.field("tags", Some(field)), refusal);
    }
    ZabbixApi {
        endpoint,
        token: token(checker, section, &raw.token_file, &raw.token_credential),
        hosts: hosts.to_vec(),
        groups,
        data_collection,
        tags: tags.into_iter().map(|(_, tag)| tag).collect(),
        name: checker.value(section, "name", raw.name.as_ref(), |name| maintenance(name)),
    }
}

fn maintenance(name: &str) -> Result<String, Refusal> {
    let name = rules::zabbix_name(name)?;
    match name.chars().count() <= 128 {
        true => Ok(name),
        false => {
            Err(Refusal::new("is too long for the name of a maintenance", "at most 128 characters"))
        }
    }
}

/// To Zabbix an empty filter means everything: an empty list is refused.
fn names(checker: &mut Checker, section: &Section, name: &str, list: &raw::List) -> Vec<String> {
    if let Some(field) = list.as_ref().filter(|list| list.get_ref().is_empty()) {
        checker.refuse(
            &section.field(name, Some(field)),
            Refusal::new("is empty", format!("names, or no {name}")),
        );
    }
    let names =
        checker.list(section, name, list, |text| rules::zabbix_name(text)).unwrap_or_default();
    names.into_iter().map(|(_, name)| name).collect()
}

fn trapper(
    checker: &mut Checker,
    section: &Section,
    raw: &raw::Zabbix,
    hosts: &[String],
) -> Trapper {
    let servers = checker
        .list(section, "trapper", &raw.trapper, |text| rules::servers(text))
        .unwrap_or_default();
    if let Some(field) = raw.trapper.as_ref().filter(|list| list.get_ref().is_empty()) {
        checker.refuse(
            &section.field("trapper", Some(field)),
            Refusal::new("is empty", "servers or proxies, like [\"zabbix.example.com:10051\"]"),
        );
    }
    let given = checker
        .value(section, "trapper-host", raw.trapper_host.as_ref(), |name| rules::zabbix_name(name));
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
        tls: tls(checker, section, raw),
    }
}

/// A pre-shared key, or a certificate.
fn tls(checker: &mut Checker, section: &Section, raw: &raw::Zabbix) -> Option<TrapperTls> {
    let identity = checker
        .value(section, "psk-identity", raw.psk_identity.as_ref(), |name| rules::zabbix_name(name));
    let psk = checker.named_secret(section, "psk", &raw.psk_file, &raw.psk_credential);
    let ca_file =
        checker.value(section, "tls-ca-file", raw.tls_ca_file.as_ref(), |path| values::path(path));
    let certificate =
        checker.value(section, "tls-certificate-file", raw.tls_certificate_file.as_ref(), |path| {
            values::path(path)
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
