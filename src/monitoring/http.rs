//! HTTP as all the systems here need it: a time limit on everything, no redirects, own
//! certificates, proxies, answers of bounded length, and errors that never repeat a secret.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use reqwest::header::HeaderValue;
use reqwest::{Certificate, Client, Proxy, RequestBuilder, StatusCode, Url, redirect};

use crate::config::monitoring::{Endpoint, Hook, HookUrl};
use crate::host::{own, secret, tls};

use super::retry::Away;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(10);
/// More than any answer here has.
const ANSWER_MAX: usize = 4 * 1024 * 1024;
/// Characters of an unexpected answer that are worth repeating.
const EXCERPT: usize = 200;

/// A server and the way to it.
pub(super) struct Server {
    client: Client,
    url: Url,
    /// How messages call it: whole, or without what is secret.
    shown: String,
}

/// What a server said.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Vec<u8>,
}

impl Answer {
    /// The start of it, on one line.
    pub(super) fn excerpt(&self) -> String {
        let text: String = String::from_utf8_lossy(&self.body).chars().take(EXCERPT).collect();
        let words: Vec<&str> = text.split_whitespace().collect();
        if words.is_empty() { "without a word".to_owned() } else { words.join(" ") }
    }

    /// The JSON in it.
    pub(super) fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.body)
            .with_context(|| format!("an answer that cannot be read: {}", self.excerpt()))
    }
}

impl Server {
    pub(super) fn new(endpoint: &Endpoint) -> Result<Self> {
        let client = client(endpoint.ca_file.as_deref(), endpoint.proxy.as_deref())?;
        let url = Url::parse(&endpoint.url)
            .with_context(|| format!("'{}' is not a URL", endpoint.url))?;
        Ok(Self { client, url, shown: endpoint.url.clone() })
    }

    /// The receiver of reports; `credential` names its URL where that is secret.
    pub(super) fn of_hook(hook: &Hook, credential: &str) -> Result<Self> {
        let client = client(hook.ca_file.as_deref(), hook.proxy.as_deref())?;
        let text = match &hook.url {
            HookUrl::Plain(url) => url.clone(),
            HookUrl::Secret(source) => secret::read(source, credential)?,
        };
        // Neither the text nor the parser's words about it: whoever knows a ping's URL may ping.
        let url =
            Url::parse(text.trim()).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let url = url.context("what is kept as its URL is not an http(s) URL")?;
        let shown = format!("{}://{}/…", url.scheme(), url.host_str().unwrap_or_default());
        Ok(Self { client, url, shown })
    }

    /// The server's URL with `path` behind it.
    pub(super) fn below(&self, path: &[&str]) -> Url {
        let mut url = self.url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        url
    }

    /// The root of the server, which tells that it is there and does nothing.
    pub(super) fn root(&self) -> Url {
        let mut url = self.url.clone();
        url.set_path("/");
        url.set_query(None);
        url
    }

    /// What requests are made with.
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Sends a request and reads the answer to its end. An answer of any status is an answer, but
    /// for those of a server in trouble.
    pub(super) async fn ask(&self, request: RequestBuilder) -> Result<Answer> {
        let away = |what: &str, error: reqwest::Error| {
            // With its causes: "certificate not valid for name" is the innermost.
            let error = anyhow::Error::new(error.without_url());
            anyhow::Error::new(Away(format!("{} {what}: {error:#}", self.shown)))
        };
        let mut response = request.send().await.map_err(|error| away("does not answer", error))?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) =
            response.chunk().await.map_err(|error| away("broke off its answer", error))?
        {
            anyhow::ensure!(
                body.len() + chunk.len() <= ANSWER_MAX,
                "{} answers without end",
                self.shown
            );
            body.extend_from_slice(&chunk);
        }
        let answer = Answer { status, body };
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            return Err(
                Away(format!("{} answers {status}: {}", self.shown, answer.excerpt())).into()
            );
        }
        Ok(answer)
    }

    /// Its URL as it is.
    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    /// How messages call it.
    pub(super) fn shown(&self) -> &str {
        &self.shown
    }
}

fn client(ca_file: Option<&Path>, proxy: Option<&str>) -> Result<Client> {
    tls::use_ring();
    let mut builder = Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(TIMEOUT)
        // A token is for the server that was configured.
        .redirect(redirect::Policy::none())
        .no_proxy()
        .user_agent(concat!("gitlab-backup/", env!("CARGO_PKG_VERSION")));
    if let Some(path) = ca_file {
        let pem = own::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let certificates = Certificate::from_pem_bundle(&pem)
            .with_context(|| format!("{} holds no certificates", path.display()))?;
        anyhow::ensure!(!certificates.is_empty(), "{} holds no certificates", path.display());
        builder = builder.tls_certs_merge(certificates);
    }
    if let Some(proxy) = proxy {
        builder =
            builder.proxy(Proxy::all(proxy).with_context(|| format!("'{proxy}' is not a proxy"))?);
    }
    builder.build().context("cannot set up HTTP")
}

/// A header that logs do not show.
pub(super) fn secret_header(text: &str) -> Result<HeaderValue> {
    let mut value = HeaderValue::from_str(text)
        .ok()
        .context("the secret has characters in it that no header can have")?;
    value.set_sensitive(true);
    Ok(value)
}
