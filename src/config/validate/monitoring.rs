//! `[monitoring]`

mod rules;
mod silences;
mod zabbix;

use toml::Spanned;

use super::rules::{self as values, Refusal};
use super::{Checker, Section, inner};
use crate::config::monitoring::{Endpoint, Hook, HookUrl, Monitoring, OnError, ReportConfig};
use crate::config::raw::{self, Field};
use crate::values::{SecretSource, Timespan};

const ON_ERROR: [(&str, OnError); 2] = [("warn", OnError::Warn), ("abort", OnError::Abort)];

pub(super) fn check(checker: &mut Checker, section: &Section, raw: raw::Monitoring) -> Monitoring {
    let mut silences = Vec::new();
    let mut reports = Vec::new();
    if let Some(table) = raw.zabbix {
        let zabbix = Section::of("monitoring.zabbix", Some(&table));
        zabbix::check(checker, &zabbix, table.into_inner(), &mut silences, &mut reports);
    }
    if let Some(table) = raw.alertmanager {
        let alertmanager = Section::of("monitoring.alertmanager", Some(&table));
        silences.extend(silences::alertmanager(checker, &alertmanager, table.into_inner()));
    }
    if let Some(table) = raw.broadcast {
        let broadcast = Section::of("monitoring.broadcast", Some(&table));
        silences.extend(silences::broadcast(checker, &broadcast, table.into_inner()));
    }
    reports.extend(
        hook(checker, "monitoring.healthchecks", raw.healthchecks).map(ReportConfig::Healthchecks),
    );
    if let Some(table) = raw.prometheus {
        let prometheus = Section::of("monitoring.prometheus", Some(&table));
        reports.extend(textfile(checker, &prometheus, &table.into_inner()));
    }
    reports.extend(hook(checker, "monitoring.webhook", raw.webhook).map(ReportConfig::Webhook));
    if let Some(table) = raw.command {
        let command = Section::of("monitoring.command", Some(&table));
        reports.extend(program(checker, &command, &table.into_inner()));
    }
    let on_error = checker
        .value(section, "on-error", raw.on_error.as_ref(), |word| values::word(word, &ON_ERROR));
    let grace = checker.value(section, "grace", raw.grace.as_ref(), |text| values::timespan(text));
    let wait = checker.value(section, "wait", raw.wait.as_ref(), |text| values::timespan(text));
    Monitoring {
        on_error: on_error.unwrap_or(OnError::Warn),
        grace: grace.unwrap_or(Timespan::from_secs(300)),
        wait: wait.unwrap_or(Timespan::from_secs(150)),
        silences,
        reports,
    }
}

/// Where an HTTP server is, and the way to it.
fn endpoint(
    checker: &mut Checker,
    section: &Section,
    url: (&str, &Field<String>),
    way: (&Field<String>, &Field<String>),
) -> Endpoint {
    let (name, field) = url;
    if field.is_none() {
        checker.refuse(&section.place(name), Refusal::new("is missing", rules::URL));
    }
    let url = checker.value(section, name, field.as_ref(), |text| rules::url(text));
    let (ca_file, proxy) = way;
    Endpoint {
        url: url.unwrap_or_default(),
        ca_file: checker.value(section, "ca-file", ca_file.as_ref(), |path| values::path(path)),
        proxy: checker.value(section, "proxy", proxy.as_ref(), |text| rules::proxy(text)),
    }
}

/// A token, which has to be there.
fn token(
    checker: &mut Checker,
    section: &Section,
    file: &Field<String>,
    credential: &Field<String>,
) -> SecretSource {
    if file.is_none() && credential.is_none() {
        checker.refuse(
            &section.place("token-file"),
            Refusal::new("is missing", "token-file or token-credential"),
        );
    }
    checker
        .named_secret(section, "token", file, credential)
        .unwrap_or(SecretSource::Credential(String::new()))
}

fn hook(checker: &mut Checker, key: &str, raw: Field<raw::Hook>) -> Option<Hook> {
    let section = Section::of(key, raw.as_ref());
    raw.as_ref()?;
    let raw: raw::Hook = inner(raw);
    let secret = checker.named_secret(&section, "url", &raw.url_file, &raw.url_credential);
    let given = raw.url_file.as_ref().or(raw.url_credential.as_ref());
    match (&raw.url, given) {
        (Some(url), Some(_)) => {
            let refusal = Refusal::new(
                "contradicts url-file or url-credential: a URL is in one place",
                "one of the three",
            );
            checker.refuse(&section.field("url", Some(url)), refusal);
        }
        (None, None) => checker.refuse(
            &section.place("url"),
            Refusal::new("is missing", "url, url-file or url-credential"),
        ),
        _ => {}
    }
    let plain = checker.value(&section, "url", raw.url.as_ref(), |text| rules::url(text));
    Some(Hook {
        url: secret.map_or_else(|| HookUrl::Plain(plain.unwrap_or_default()), HookUrl::Secret),
        token: checker.named_secret(&section, "token", &raw.token_file, &raw.token_credential),
        ca_file: checker
            .value(&section, "ca-file", raw.ca_file.as_ref(), |path| values::path(path)),
        proxy: checker.value(&section, "proxy", raw.proxy.as_ref(), |text| rules::proxy(text)),
    })
}

fn textfile(
    checker: &mut Checker,
    section: &Section,
    raw: &raw::Prometheus,
) -> Option<ReportConfig> {
    const ALLOWED: &str =
        "the absolute path of a .prom file in the node exporter's --collector.textfile.directory";
    if raw.textfile.is_none() {
        checker.refuse(&section.place("textfile"), Refusal::new("is missing", ALLOWED));
    }
    let path = checker.value(section, "textfile", raw.textfile.as_ref(), |text| {
        let path = values::path(text)?;
        match path.extension().is_some_and(|extension| extension == "prom") {
            true => Ok(path),
            false => Err(Refusal::new(
                format!("'{text}' is not read by the node exporter: it takes *.prom only"),
                ALLOWED,
            )),
        }
    });
    path.map(ReportConfig::Prometheus)
}

fn program(checker: &mut Checker, section: &Section, raw: &raw::Command) -> Option<ReportConfig> {
    if raw.command.is_none() {
        checker.refuse(
            &section.place("command"),
            Refusal::new("is missing", "a program and its arguments"),
        );
    }
    let timeout = checker
        .value(section, "timeout", raw.timeout.as_ref(), |text| values::timespan_above_zero(text));
    let argv = checker.command(section, &raw.command)?;
    Some(ReportConfig::Command { argv, timeout: timeout.unwrap_or(Timespan::from_secs(60)) })
}

/// A key that is for something that is not there.
fn pointless<T>(
    checker: &mut Checker,
    section: &Section,
    name: &str,
    field: Option<&Spanned<T>>,
    lacking: &str,
) {
    if let Some(field) = field {
        let refusal = Refusal::new(
            format!("is for {lacking}, which is not there"),
            format!("{lacking}, or no {name}"),
        );
        checker.refuse(&section.field(name, Some(field)), refusal);
    }
}
