//! A URL that receives reports, as `[monitoring.healthchecks]` and `[monitoring.webhook]` have it.

use std::path::PathBuf;

use anyhow::{Context, Result};
use reqwest::header::AUTHORIZATION;
use reqwest::{RequestBuilder, Url};
use serde::Deserialize;

use crate::host::secret;
use crate::schema::rules::{self, Refusal};
use crate::schema::{Checker, Field, Section};
use crate::values::SecretSource;

use super::Secret;
use super::endpoint::{check_proxy, check_url};
use super::http::{Server, secret_header};

/// The section of a hook, as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawHook {
    url: Field<String>,
    url_file: Field<String>,
    url_credential: Field<String>,
    token_file: Field<String>,
    token_credential: Field<String>,
    ca_file: Field<String>,
    proxy: Field<String>,
}

/// A URL that receives reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// The URL.
    pub url: HookUrl,
    /// Sent as a bearer token.
    pub token: Option<SecretSource>,
    /// Certificates that are trusted in addition to the system's.
    pub ca_file: Option<PathBuf>,
    /// `http://`, `https://` or `socks5://`.
    pub proxy: Option<String>,
    credentials: Credentials,
}

/// The URL of a hook. Some are secrets: anybody who knows the URL of a ping can send one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HookUrl {
    /// Written in the configuration.
    Plain(String),
    /// Kept elsewhere.
    Secret(SecretSource),
}

/// The names of the credentials as which units receive a hook's secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Credentials {
    pub(super) url: &'static str,
    pub(super) token: &'static str,
}

impl Hook {
    /// Checks the section of a hook.
    pub(super) fn check(
        checker: &mut Checker,
        section: &Section,
        raw: &RawHook,
        credentials: Credentials,
    ) -> Self {
        let secret = checker.named_secret(section, "url", &raw.url_file, &raw.url_credential);
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
        let plain = checker.value(section, "url", raw.url.as_ref(), |text| check_url(text));
        Self {
            url: secret.map_or_else(|| HookUrl::Plain(plain.unwrap_or_default()), HookUrl::Secret),
            token: checker.named_secret(section, "token", &raw.token_file, &raw.token_credential),
            ca_file: checker
                .value(section, "ca-file", raw.ca_file.as_ref(), |path| rules::path(path)),
            proxy: checker.value(section, "proxy", raw.proxy.as_ref(), |text| check_proxy(text)),
            credentials,
        }
    }

    /// The URL, if it is a secret, and the token.
    pub(super) fn secrets(&self) -> Vec<Secret<'_>> {
        let url = match &self.url {
            HookUrl::Secret(source) => Some((self.credentials.url, source)),
            HookUrl::Plain(_) => None,
        };
        let token = self.token.iter().map(|source| (self.credentials.token, source));
        url.into_iter().chain(token).collect()
    }

    /// The server that receives the reports.
    pub(super) fn server(&self) -> Result<Server> {
        let text = match &self.url {
            HookUrl::Plain(url) => url.clone(),
            HookUrl::Secret(source) => secret::read(source, self.credentials.url)?,
        };
        // The error contains neither the text nor the parser's message: the URL may be a secret.
        let url =
            Url::parse(text.trim()).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let url = url.context("what is kept as its URL is not an http(s) URL")?;
        let shown = format!("{}://{}/…", url.scheme(), url.host_str().unwrap_or_default());
        Server::new(url, shown, self.ca_file.as_deref(), self.proxy.as_deref())
    }

    /// Sends `request` with the token, and fails unless the answer is a success.
    pub(super) async fn send(&self, server: &Server, request: RequestBuilder) -> Result<()> {
        let mut request = request;
        if let Some(source) = &self.token {
            let token = secret::read(source, self.credentials.token)?;
            request = request.header(AUTHORIZATION, secret_header(&format!("Bearer {token}"))?);
        }
        let answer = server.send(request).await?;
        answer.accepted().with_context(|| server.shown().to_owned())
    }

    /// Checks that the server answers. Requests its root only: a request to the URL itself would
    /// count as a report.
    pub(super) async fn probe(&self) -> Result<String> {
        let server = self.server()?;
        let answer = server.send(server.client().get(server.root())).await?;
        Ok(format!(
            "{} answers with status {}; only a report can show whether the whole URL is right",
            server.shown(),
            answer.status
        ))
    }
}
