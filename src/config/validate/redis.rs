//! `[[redis]]`

use toml::Spanned;

use super::rules::{self, Refusal};
use super::{Checker, Defaults, KeyPlace, Section};
use crate::config::raw::{self, Field};
use crate::config::{Redis, RedisAddress};
use crate::values::Timespan;

const URL: &str = "unix:///path, redis://[USER@]HOST[:PORT] or rediss://[USER@]HOST[:PORT]";
const TIMEOUT: Timespan = Timespan::from_secs(10 * 60);
const PORT: u16 = 6379;

/// Validates the configured servers. If there is no `redis` key, the layout supplies its server.
pub(super) fn check(
    checker: &mut Checker,
    raw: Field<Vec<Spanned<raw::Redis>>>,
    defaults: &Defaults,
) -> Vec<Redis> {
    let Some(list) = raw.map(Spanned::into_inner) else {
        let (address, username) = match defaults.redis.as_deref().map(address) {
            Some(Ok(found)) => found,
            _ => return Vec::new(),
        };
        return vec![Redis {
            name: "main".to_owned(),
            address,
            username,
            password: None,
            timeout: TIMEOUT,
            unit: defaults.redis_unit.clone(),
        }];
    };
    let only = list.len() == 1;
    let mut accepted: Vec<(KeyPlace, Redis)> = Vec::new();
    for (index, element) in list.into_iter().enumerate() {
        let section = Section::of(format!("redis[{index}]"), Some(&element));
        let raw = element.into_inner();
        let place = section.field("name", raw.name.as_ref());
        let mut redis = check_one(checker, &section, raw, only);
        // It is the layout's server, so the layout knows its unit.
        if redis.unit.is_none()
            && defaults.redis.as_deref().map(address)
                == Some(Ok((redis.address.clone(), redis.username.clone())))
        {
            redis.unit = defaults.redis_unit.clone();
        }
        if let Some((first, _)) =
            accepted.iter().find(|(_, other)| !redis.name.is_empty() && other.name == redis.name)
        {
            let message = format!("'{}' is listed twice, first as {}", redis.name, first.key);
            checker.refuse(&place, Refusal::new(message, "a unique name"));
        }
        accepted.push((place, redis));
    }
    accepted.into_iter().map(|(_, redis)| redis).collect()
}

/// Validates one server. If it is the only one, it needs no name.
fn check_one(checker: &mut Checker, section: &Section, raw: raw::Redis, only: bool) -> Redis {
    let name = checker.value(section, "name", raw.name.as_ref(), |name| redis_name(name));
    if raw.name.is_none() && !only {
        checker.refuse(
            &section.place("name"),
            Refusal::new("is missing", "a unique name for each if there are several"),
        );
    }
    if raw.url.is_none() {
        checker.refuse(&section.place("url"), Refusal::new("is missing", URL));
    }
    let (address, username) =
        match checker.value(section, "url", raw.url.as_ref(), |url| address(url)) {
            Some((address, username)) => (address, username),
            None => (RedisAddress::Unix("/".into()), None),
        };
    Redis {
        name: name.unwrap_or_else(|| if only { "main".to_owned() } else { String::new() }),
        address,
        username,
        password: checker.secret(section, &raw.password_file, &raw.password_credential),
        timeout: checker
            .value(section, "timeout", raw.timeout.as_ref(), |text| {
                rules::timespan_above_zero(text)
            })
            .unwrap_or(TIMEOUT),
        unit: checker.value(section, "unit", raw.unit.as_ref(), |name| rules::unit(name)),
    }
}

fn redis_name(name: &str) -> Result<String, Refusal> {
    let good = !name.is_empty()
        && name.len() <= 64
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
    if good {
        Ok(name.to_owned())
    } else {
        Err(Refusal::new(format!("'{name}' is not a name"), "1 to 64 letters, digits, '-' and '_'"))
    }
}

/// The address and the user of a URL. Messages never quote a URL, which may contain a password:
/// they end up in the journal.
fn address(url: &str) -> Result<(RedisAddress, Option<String>), Refusal> {
    let refuse = |why: &str| Err(Refusal::new(why, URL));
    if let Some(path) = url.strip_prefix("unix://") {
        if path.contains('?') {
            return refuse("has a query: a save takes all databases");
        }
        return Ok((RedisAddress::Unix(rules::path(path)?), None));
    }
    let (tls, rest) = match (url.strip_prefix("redis://"), url.strip_prefix("rediss://")) {
        (Some(rest), _) => (false, rest),
        (_, Some(rest)) => (true, rest),
        _ => return refuse("is not the URL of a Redis"),
    };
    let (user, rest) = match rest.rsplit_once('@') {
        Some((user, rest)) => (Some(user), rest),
        None => (None, rest),
    };
    if user.is_some_and(|user| user.contains(':')) {
        return Err(Refusal::new(
            "has a password in it, which would end up in units and logs",
            "the URL without it, and password-file or password-credential",
        ));
    }
    let username = match user.filter(|user| !user.is_empty()).map(percent_decode) {
        Some(None) => return refuse("has a user that is not percent-encoded text"),
        Some(Some(user)) if user.contains(char::is_control) => {
            return refuse("has a control character in the user");
        }
        Some(user) => user,
        None => None,
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains(['/', '?', '#']) {
        return refuse("names a database or a query: a save takes all databases");
    }
    let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, after)) if host.parse::<std::net::Ipv6Addr>().is_ok() => {
            (host, after.strip_prefix(':').or((!after.is_empty()).then_some("")))
        }
        Some(_) => return refuse("has something between [ and ] that is not an IPv6 address"),
        None => {
            authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port)))
        }
    };
    let is_name =
        host.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c)) && !host.is_empty();
    if !is_name && !host.contains(':') {
        return refuse("has no host");
    }
    let port = match port.map(|port| port.parse::<u16>()) {
        None => PORT,
        Some(Ok(port)) if port > 0 => port,
        Some(_) => return refuse("has a port that is not between 1 and 65535"),
    };
    Ok((RedisAddress::Tcp { host: host.to_owned(), port, tls }, username))
}

/// Decodes percent-encoding; `None` if it is malformed or the result is not UTF-8.
fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut parts = text.split('%');
    bytes.extend_from_slice(parts.next()?.as_bytes());
    for part in parts {
        let code = part.get(..2).filter(|code| code.chars().all(|c| c.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(code, 16).ok()?);
        bytes.extend_from_slice(part.get(2..)?.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_a_socket_or_a_host() {
        let tcp = |host: &str, port, tls| RedisAddress::Tcp { host: host.to_owned(), port, tls };
        for (url, expected, user) in [
            (
                "unix:///run/redis/redis.sock",
                RedisAddress::Unix("/run/redis/redis.sock".into()),
                None,
            ),
            ("redis://localhost", tcp("localhost", 6379, false), None),
            ("redis://127.0.0.1:6380/", tcp("127.0.0.1", 6380, false), None),
            (
                "rediss://backup@redis.example.org:1",
                tcp("redis.example.org", 1, true),
                Some("backup"),
            ),
            ("redis://a%40b%3Ac@[::1]:7", tcp("::1", 7, false), Some("a@b:c")),
            ("redis://[fe80::1]", tcp("fe80::1", 6379, false), None),
        ] {
            assert_eq!(address(url).unwrap(), (expected, user.map(str::to_owned)), "{url}");
        }
        for url in [
            "",
            "localhost",
            "http://h",
            "redis://",
            "redis://h:",
            "redis://h:0",
            "redis://h:65536",
            "redis://h/3",
            "redis://h?x",
            "redis://[x]",
            "redis://[::1]x",
            "redis://a b",
            "unix://relative",
            "unix:///a?db=1",
            "unix:///a\nb",
            "redis://%zz@h",
            "redis://%0a@h",
            "redis://::1",
        ] {
            assert!(address(url).is_err(), "{url:?}");
        }
    }

    #[test]
    fn a_password_in_the_url_is_refused_and_not_repeated() {
        for url in ["redis://:hunter2@h", "redis://u:hunter2@h:1/0", "rediss://u:hunter2@"] {
            let refusal = address(url).unwrap_err();
            assert!(
                refusal.message.contains("password")
                    && refusal.allowed.as_ref().unwrap().contains("password-file"),
                "{refusal:?}"
            );
            assert!(!format!("{refusal:?}").contains("hunter2"));
        }
    }
}
