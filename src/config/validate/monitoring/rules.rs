//! What single values of `[monitoring]` may be.

use crate::config::monitoring::{Address, Matcher};

use super::super::rules::{Refusal, one_line};

pub(super) const URL: &str = "http://HOST… or https://HOST…";
const PROXY: &str = "http://HOST:PORT, https://HOST:PORT or socks5://HOST:PORT";
const TRAPPER_PORT: u16 = 10051;

/// A server's URL. Never repeats one: what is refused ends up in the journal, and whoever knows a
/// ping's URL may ping.
pub(super) fn url(text: &str) -> Result<String, Refusal> {
    checked(text, &["http", "https"], URL, "the URL without it, and the token in a file")?;
    Ok(text.to_owned())
}

/// A proxy, without a user.
pub(super) fn proxy(text: &str) -> Result<String, Refusal> {
    checked(
        text,
        &["http", "https", "socks5", "socks5h"],
        PROXY,
        "a proxy that knows this host without a password",
    )?;
    Ok(text.to_owned())
}

fn checked(text: &str, schemes: &[&str], allowed: &str, without: &str) -> Result<(), Refusal> {
    if text.chars().any(|c| c.is_control() || c == ' ') {
        return Err(Refusal::new("has a space or a control character in it", allowed));
    }
    match reqwest::Url::parse(text) {
        Ok(url) if !url.username().is_empty() || url.password().is_some() => {
            Err(Refusal::new("has a user or a password in it, which would end up in logs", without))
        }
        Ok(url) if !schemes.contains(&url.scheme()) || url.host_str().is_none() => {
            Err(Refusal::new("is not such a URL", allowed))
        }
        Ok(_) => Ok(()),
        Err(error) => Err(Refusal::new(format!("is not a URL ({error})"), allowed)),
    }
}

/// Trapper addresses; the nodes of one cluster with `;` between them, as in Zabbix' own
/// `ServerActive=`.
pub(super) fn servers(text: &str) -> Result<Vec<Address>, Refusal> {
    text.split(';').map(|node| address(node.trim())).collect()
}

fn address(text: &str) -> Result<Address, Refusal> {
    let refuse = || {
        Refusal::new(
            format!("'{text}' is not an address"),
            "HOST, HOST:PORT or [IPv6]:PORT; with ';' between the nodes of a cluster",
        )
    };
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']').ok_or_else(refuse)?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| refuse())?;
            (
                host,
                if after.is_empty() {
                    None
                } else {
                    Some(after.strip_prefix(':').ok_or_else(refuse)?)
                },
            )
        }
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let named = !host.is_empty()
        && host.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c))
        && !host.starts_with('-');
    let port = match port {
        None => TRAPPER_PORT,
        Some(port) => port.parse().ok().filter(|port| *port > 0).ok_or_else(refuse)?,
    };
    if named || host.contains(':') {
        Ok(Address { host: host.to_owned(), port })
    } else {
        Err(refuse())
    }
}

/// A name in Zabbix: a host, a group, a maintenance, an item's key.
pub(super) fn zabbix_name(text: &str) -> Result<String, Refusal> {
    let text = one_line(text)?;
    match text.chars().count() <= 255 && text.trim() == text {
        true => Ok(text),
        false => Err(Refusal::new(
            format!("'{text}' is not a name in Zabbix"),
            "at most 255 characters, neither the first nor the last a space",
        )),
    }
}

/// `NAME=VALUE`, or `NAME` for any value.
pub(super) fn tag(text: &str) -> Result<(String, Option<String>), Refusal> {
    let text = one_line(text)?;
    let (name, value) =
        text.split_once('=').map_or((text.as_str(), None), |(name, value)| (name, Some(value)));
    match name.trim().is_empty() {
        true => {
            Err(Refusal::new(format!("'{text}' has no name"), "NAME=VALUE, or NAME for any value"))
        }
        false => Ok((name.trim().to_owned(), value.map(|value| value.trim().to_owned()))),
    }
}

/// A label matcher as `amtool` takes it; quotes around the value may be left out.
pub(super) fn matcher(text: &str) -> Result<Matcher, Refusal> {
    let refuse = || {
        Refusal::new(
            format!("'{text}' is not a matcher"),
            "LABEL=VALUE, LABEL!=VALUE, LABEL=~REGEX or LABEL!~REGEX",
        )
    };
    let text = one_line(text)?;
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').ok_or_else(refuse)?;
    let (name, rest) = text.split_at(end);
    let operators =
        [("=~", true, true), ("!~", true, false), ("!=", false, false), ("=", false, true)];
    let found = operators.into_iter().find_map(|(sign, is_regex, is_equal)| {
        Some((rest.trim_start().strip_prefix(sign)?, is_regex, is_equal))
    });
    let (value, is_regex, is_equal) = found.ok_or_else(refuse)?;
    let value = value.trim();
    let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
    match name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        true => Err(refuse()),
        false => Ok(Matcher { name: name.to_owned(), value: value.to_owned(), is_regex, is_equal }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_with_a_password_is_refused_and_never_repeated() {
        for text in [
            "https://z.example.com/api_jsonrpc.php",
            "http://[::1]:8080",
            "https://hc-ping.com/key",
        ] {
            assert_eq!(url(text).unwrap(), text);
        }
        for text in [
            "",
            "ftp://h/",
            "https://",
            "https://u:hunter2@h/",
            "https://hunter2@h/",
            "https://h/hunter2 x",
            "hunter2",
        ] {
            let refusal = url(text).unwrap_err();
            assert!(!format!("{refusal:?}").contains("hunter2"), "{refusal:?}");
        }
        assert!(
            proxy("socks5://127.0.0.1:1080").is_ok()
                && proxy("http://u:hunter2@p:3128").is_err()
                && url("socks5://h").is_err()
        );
    }

    #[test]
    fn addresses_have_zabbix_port_unless_they_say_otherwise() {
        let nodes = |text: &str| {
            servers(text)
                .map(|nodes| nodes.iter().map(ToString::to_string).collect::<Vec<_>>())
                .unwrap_or_default()
        };
        assert_eq!(nodes("zabbix.example.com"), ["zabbix.example.com:10051"]);
        assert_eq!(nodes("a:1; b;[::1]:7"), ["a:1", "b:10051", "[::1]:7"]);
        for text in ["", "a;", "a:0", "a:x", "a:65536", "::1", "[x]:1", "a b", "-o"] {
            assert!(servers(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn matchers_are_those_of_amtool() {
        let parts =
            |text: &str| matcher(text).map(|m| (m.name, m.value, m.is_regex, m.is_equal)).unwrap();
        assert_eq!(
            parts("instance=gitlab:9100"),
            ("instance".into(), "gitlab:9100".into(), false, true)
        );
        assert_eq!(parts("job =~ \"git.*\""), ("job".into(), "git.*".into(), true, true));
        assert_eq!(parts("a!=b"), ("a".into(), "b".into(), false, false));
        assert_eq!(parts("a!~\"\""), ("a".into(), String::new(), true, false));
        for text in ["", "a", "=b", "1a=b", "a b", "a-b=c"] {
            assert!(matcher(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn tags_may_have_a_value() {
        assert_eq!(tag("scope=backup").unwrap(), ("scope".to_owned(), Some("backup".to_owned())));
        assert_eq!(tag("scope").unwrap(), ("scope".to_owned(), None));
        assert!(tag("=x").is_err() && tag(" ").is_err());
    }
}
