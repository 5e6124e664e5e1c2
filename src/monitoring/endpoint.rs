//! The keys that all sections with an HTTP server have: its URL, certificates, a proxy and a token.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::schema::rules::{self, Refusal};
use crate::schema::{Checker, Field, Section};
use crate::values::SecretSource;

const URL: &str = "http://HOST… or https://HOST…";
const PROXY: &str = "http://HOST:PORT, https://HOST:PORT or socks5://HOST:PORT";

/// An HTTP server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// `http://` or `https://`, without user and password.
    pub url: String,
    /// Certificates that are trusted in addition to the system's.
    pub ca_file: Option<PathBuf>,
    /// `http://`, `https://` or `socks5://`.
    pub proxy: Option<String>,
}

impl Endpoint {
    /// Checks the required URL, whose key is `name`, and the optional keys `ca-file` and `proxy`.
    pub(super) fn check(
        checker: &mut Checker,
        section: &Section,
        (name, url): (&str, &Field<String>),
        ca_file: &Field<String>,
        proxy: &Field<String>,
    ) -> Self {
        if url.is_none() {
            checker.refuse(&section.place(name), Refusal::new("is missing", URL));
        }
        let url = checker.value(section, name, url.as_ref(), |text| check_url(text));
        Self {
            url: url.unwrap_or_default(),
            ca_file: checker.value(section, "ca-file", ca_file.as_ref(), |path| rules::path(path)),
            proxy: checker.value(section, "proxy", proxy.as_ref(), |text| check_proxy(text)),
        }
    }
}

/// Checks `token-file` and `token-credential`, one of which is required.
pub(super) fn check_token(
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

/// A server's URL. A refusal never quotes it: refusals end up in the journal, and the URL of a ping
/// is a secret.
pub(super) fn check_url(text: &str) -> Result<String, Refusal> {
    parse(text, &["http", "https"], URL, "the URL without it, and the token in a file")?;
    Ok(text.to_owned())
}

/// A proxy's URL, without user and password.
pub(super) fn check_proxy(text: &str) -> Result<String, Refusal> {
    parse(
        text,
        &["http", "https", "socks5", "socks5h"],
        PROXY,
        "a proxy that knows this host without a password",
    )?;
    Ok(text.to_owned())
}

fn parse(text: &str, schemes: &[&str], allowed: &str, without: &str) -> Result<(), Refusal> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_with_a_password_is_refused_and_never_quoted() {
        for text in [
            "https://z.example.com/api_jsonrpc.php",
            "http://[::1]:8080",
            "https://hc-ping.com/key",
        ] {
            assert_eq!(check_url(text).unwrap(), text);
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
            let refusal = check_url(text).unwrap_err();
            assert!(!format!("{refusal:?}").contains("hunter2"), "{refusal:?}");
        }
        assert!(
            check_proxy("socks5://127.0.0.1:1080").is_ok()
                && check_proxy("http://u:hunter2@p:3128").is_err()
                && check_url("socks5://h").is_err()
        );
    }
}
