//! HTTP for monitoring systems: a time limit on everything, no redirects, additional certificates,
//! proxies, answers of bounded length, and errors that never quote a secret.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::header::HeaderValue;
use reqwest::{Certificate, Client, Proxy, RequestBuilder, StatusCode, Url, redirect};

use crate::host::{own, tls};

use super::endpoint::Endpoint;
use super::retry::Unreachable;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes; no answer is nearly as long.
const ANSWER_MAX: usize = 4 * 1024 * 1024;
/// Characters of an unexpected answer that errors quote.
const EXCERPT: usize = 200;

/// A server, and a client for requests to it.
pub(super) struct Server {
    client: Client,
    url: Url,
    /// The URL in messages; without its path if that is a secret.
    shown: String,
}

/// The answer of a server.
pub(super) struct HttpAnswer {
    pub(super) status: StatusCode,
    pub(super) body: Vec<u8>,
}

impl HttpAnswer {
    /// The start of the body, on one line.
    pub(super) fn excerpt(&self) -> String {
        let text: String = String::from_utf8_lossy(&self.body).chars().take(EXCERPT).collect();
        let words: Vec<&str> = text.split_whitespace().collect();
        if words.is_empty() { "without a word".to_owned() } else { words.join(" ") }
    }

    /// Fails unless the status is a success, and quotes the answer.
    pub(super) fn accepted(&self) -> Result<()> {
        ensure!(self.status.is_success(), "it answers {}: {}", self.status, self.excerpt());
        Ok(())
    }

    /// Parses the body as JSON.
    pub(super) fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.body)
            .with_context(|| format!("an answer that cannot be read: {}", self.excerpt()))
    }
}

impl Server {
    /// The server at `url`; messages call it `shown`.
    pub(super) fn new(
        url: Url,
        shown: String,
        ca_file: Option<&Path>,
        proxy: Option<&str>,
    ) -> Result<Self> {
        Ok(Self { client: client(ca_file, proxy)?, url, shown })
    }

    /// The server of an endpoint, whose URL is not a secret.
    pub(super) fn of(endpoint: &Endpoint) -> Result<Self> {
        let url = Url::parse(&endpoint.url)
            .with_context(|| format!("'{}' is not a URL", endpoint.url))?;
        let shown = endpoint.url.clone();
        Self::new(url, shown, endpoint.ca_file.as_deref(), endpoint.proxy.as_deref())
    }

    /// The URL with `path` appended.
    pub(super) fn below(&self, path: &[&str]) -> Url {
        let mut url = self.url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        url
    }

    /// The URL of the server's root, a request for which has no effect.
    pub(super) fn root(&self) -> Url {
        let mut url = self.url.clone();
        url.set_path("/");
        url.set_query(None);
        url
    }

    /// Builds requests.
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Sends a request and reads the whole answer, whatever its status. A server error, or too many
    /// requests, count as unreachable.
    pub(super) async fn send(&self, request: RequestBuilder) -> Result<HttpAnswer> {
        let unreachable = |what: &str, error: reqwest::Error| {
            // Formatted with its causes: the innermost is the one that helps, such as
            // "certificate not valid for name".
            let error = anyhow::Error::new(error.without_url());
            anyhow::Error::new(Unreachable(format!("{} {what}: {error:#}", self.shown)))
        };
        let mut response =
            request.send().await.map_err(|error| unreachable("does not answer", error))?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) =
            response.chunk().await.map_err(|error| unreachable("broke off its answer", error))?
        {
            ensure!(body.len() + chunk.len() <= ANSWER_MAX, "{} answers without end", self.shown);
            body.extend_from_slice(&chunk);
        }
        let answer = HttpAnswer { status, body };
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            return Err(Unreachable(format!(
                "{} answers {status}: {}",
                self.shown,
                answer.excerpt()
            ))
            .into());
        }
        Ok(answer)
    }

    /// The URL as it is configured.
    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    /// The URL as messages show it.
    pub(super) fn shown(&self) -> &str {
        &self.shown
    }
}

fn client(ca_file: Option<&Path>, proxy: Option<&str>) -> Result<Client> {
    tls::use_ring();
    let mut builder = Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(TIMEOUT)
        // The token must not be sent to another server.
        .redirect(redirect::Policy::none())
        .no_proxy()
        .user_agent(concat!("gitlab-backup/", env!("CARGO_PKG_VERSION")));
    if let Some(path) = ca_file {
        let pem = own::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let certificates = Certificate::from_pem_bundle(&pem)
            .with_context(|| format!("{} holds no certificates", path.display()))?;
        ensure!(!certificates.is_empty(), "{} holds no certificates", path.display());
        builder = builder.tls_certs_merge(certificates);
    }
    if let Some(proxy) = proxy {
        builder =
            builder.proxy(Proxy::all(proxy).with_context(|| format!("'{proxy}' is not a proxy"))?);
    }
    builder.build().context("cannot set up HTTP")
}

/// The value of a header that logs do not show.
pub(super) fn secret_header(text: &str) -> Result<HeaderValue> {
    let mut value = HeaderValue::from_str(text)
        .ok()
        .context("the secret has characters in it that no header can have")?;
    value.set_sensitive(true);
    Ok(value)
}
