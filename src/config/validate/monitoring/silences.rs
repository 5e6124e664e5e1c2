//! `[monitoring.alertmanager]` and `[monitoring.broadcast]`

use super::super::rules::{self as values, Refusal};
use super::super::{Checker, Section};
use super::{endpoint, rules, token};
use crate::config::monitoring::{Alertmanager, Broadcast, SilenceConfig};
use crate::config::raw;

const MESSAGE: &str = "Backup at {time}: GitLab will be away for {downtime}";

pub(super) fn alertmanager(
    checker: &mut Checker,
    section: &Section,
    raw: raw::Alertmanager,
) -> Option<SilenceConfig> {
    let endpoint = endpoint(checker, section, ("url", &raw.url), (&raw.ca_file, &raw.proxy));
    let matchers = checker.list(section, "matchers", &raw.matchers, |text| rules::matcher(text));
    if raw.matchers.as_ref().is_none_or(|list| list.get_ref().is_empty()) {
        let refusal = Refusal::new(
            "is missing: a silence of everything is none of ours",
            "labels, like [\"instance=gitlab.example.com:9100\"]",
        );
        checker.refuse(&section.field("matchers", raw.matchers.as_ref()), refusal);
    }
    let password = checker.secret(section, &raw.password_file, &raw.password_credential);
    let token = checker.named_secret(section, "token", &raw.token_file, &raw.token_credential);
    let username =
        checker.value(section, "username", raw.username.as_ref(), |name| values::one_line(name));
    if let (Some(field), true) =
        (raw.token_file.as_ref().or(raw.token_credential.as_ref()), raw.username.is_some())
    {
        let refusal = Refusal::new(
            "contradicts username: a request has one of them",
            "a token, or username and password",
        );
        checker.refuse(&section.field("token-file", Some(field)), refusal);
    }
    let given = raw.password_file.as_ref().or(raw.password_credential.as_ref());
    if given.is_some() != raw.username.is_some() {
        let refusal = Refusal::new(
            "is there without the other half",
            "username and password-file or password-credential",
        );
        let name = if given.is_some() { "password-file" } else { "username" };
        checker.refuse(&section.field(name, given.or(raw.username.as_ref())), refusal);
    }
    let matchers = matchers.unwrap_or_default().into_iter().map(|(_, matcher)| matcher).collect();
    Some(SilenceConfig::Alertmanager(Alertmanager {
        endpoint,
        secret: password.or(token),
        username,
        matchers,
    }))
}

pub(super) fn broadcast(
    checker: &mut Checker,
    section: &Section,
    raw: raw::Broadcast,
) -> Option<SilenceConfig> {
    let endpoint = endpoint(checker, section, ("url", &raw.url), (&raw.ca_file, &raw.proxy));
    let token = token(checker, section, &raw.token_file, &raw.token_credential);
    let message = checker.value(section, "message", raw.message.as_ref(), |text| message(text));
    Some(SilenceConfig::Broadcast(Broadcast {
        endpoint,
        token,
        message: message.unwrap_or_else(|| MESSAGE.to_owned()),
    }))
}

fn message(text: &str) -> Result<String, Refusal> {
    let text = values::one_line(text)?;
    match text.replace("{time}", "").replace("{downtime}", "").contains(['{', '}']) {
        true => Err(Refusal::new(
            format!("'{text}' has something in braces that is not known"),
            "{time} and {downtime}",
        )),
        false => Ok(text),
    }
}
