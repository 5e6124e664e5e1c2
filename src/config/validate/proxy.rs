//! `[[gitlab.proxy]]`

use toml::Spanned;

use super::rules::{self, Refusal};
use super::{Checker, Section};
use crate::config::{Proxy, raw};
use crate::values::Timespan;

const NAME: &str =
    "1 to 64 lower case letters, digits, '-' and '_', neither the first nor the last a '-'";

/// Validates the configured proxies and adds them to those of the layout. A configured proxy
/// replaces the layout's proxy of the same name.
pub(super) fn check(
    checker: &mut Checker,
    raw: Option<&Spanned<Vec<Spanned<raw::Proxy>>>>,
    defaults: Vec<Proxy>,
) -> Vec<Proxy> {
    let mut own: Vec<(Section, &raw::Proxy, Proxy)> = Vec::new();
    for (index, element) in raw.iter().flat_map(|list| list.get_ref()).enumerate() {
        let section = Section::of(format!("gitlab.proxy[{index}]"), Some(element));
        let raw = element.get_ref();
        let proxy = check_one(checker, &section, raw);
        if let Some(first) =
            own.iter().position(|(.., other)| !proxy.name.is_empty() && other.name == proxy.name)
        {
            let message =
                format!("'{}' is listed twice, first as gitlab.proxy[{first}].name", proxy.name);
            checker.refuse(
                &section.field("name", raw.name.as_ref()),
                Refusal::new(message, "a unique name"),
            );
        }
        own.push((section, raw, proxy));
    }
    let kept = defaults
        .into_iter()
        .filter(|proxy| !own.iter().any(|(.., other)| other.name == proxy.name));
    let proxies: Vec<Proxy> = kept.chain(own.iter().map(|(.., proxy)| proxy.clone())).collect();
    for (section, raw, proxy) in &own {
        for (index, name) in proxy.after.iter().enumerate() {
            let place = section.field(&format!("after[{index}]"), raw.after.as_ref());
            if !proxies.iter().any(|other| other.name == *name) {
                let all: Vec<_> = proxies
                    .iter()
                    .map(|proxy| proxy.name.as_str())
                    .filter(|name| !name.is_empty())
                    .collect();
                checker.refuse(
                    &place,
                    Refusal::new(format!("there is no proxy '{name}'"), all.join(", ")),
                );
            } else if comes_after(&proxies, name, &proxy.name) {
                let message =
                    format!("'{}' and '{name}' would each come after the other", proxy.name);
                checker.refuse(&place, Refusal::new(message, "an order without a circle"));
            }
        }
    }
    proxies
}

fn check_one(checker: &mut Checker, section: &Section, raw: &raw::Proxy) -> Proxy {
    for (name, missing, allowed) in [
        ("name", raw.name.is_none(), NAME),
        ("start", raw.start.is_none(), "a program and its arguments"),
        ("stop", raw.stop.is_none(), "a program and its arguments"),
        (
            "status",
            raw.status.is_none(),
            "a program and its arguments, which tells whether the service runs",
        ),
    ] {
        if missing {
            checker.refuse(&section.place(name), Refusal::new("is missing", allowed));
        }
    }
    let timeout = checker
        .value(section, "timeout", raw.timeout.as_ref(), |text| rules::timespan_above_zero(text));
    Proxy {
        name: checker
            .value(section, "name", raw.name.as_ref(), |text| name(text))
            .unwrap_or_default(),
        start: checker.named_command(section, "start", &raw.start).unwrap_or_default(),
        stop: checker.named_command(section, "stop", &raw.stop).unwrap_or_default(),
        status: checker.named_command(section, "status", &raw.status).unwrap_or_default(),
        timeout: timeout.unwrap_or(Timespan::from_secs(Proxy::TIMEOUT)).duration().as_secs().max(1),
        after: checker
            .list(section, "after", &raw.after, |text| name(text))
            .unwrap_or_default()
            .into_iter()
            .map(|(_, name)| name)
            .collect(),
    }
}

fn name(text: &str) -> Result<String, Refusal> {
    let characters =
        text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c));
    let good = characters
        && !text.is_empty()
        && text.len() <= 64
        && !text.starts_with('-')
        && !text.ends_with('-');
    if good {
        Ok(text.to_owned())
    } else {
        Err(Refusal::new(format!("'{text}' is not the name of a proxy"), NAME))
    }
}

/// Whether `from` comes after `to`, directly or through other proxies.
fn comes_after(proxies: &[Proxy], from: &str, to: &str) -> bool {
    let mut seen = vec![from];
    let mut index = 0;
    while let Some(name) = seen.get(index).copied() {
        if name == to {
            return true;
        }
        for next in proxies.iter().filter(|proxy| proxy.name == name).flat_map(|proxy| &proxy.after)
        {
            if !seen.contains(&next.as_str()) {
                seen.push(next);
            }
        }
        index += 1;
    }
    false
}
