//! Asks GitLab whether it is usable.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::Client;

use crate::config::ReadinessUrl;

const TIMEOUT: Duration = Duration::from_secs(5);

/// Asks once. Fails with what GitLab, or the way to it, said.
pub async fn ask(url: &ReadinessUrl) -> Result<()> {
    // One provider for the process; a second installation is refused and harmless.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = Client::builder().timeout(TIMEOUT).no_proxy();
    let (client, url) = match url {
        ReadinessUrl::Http(url) => (builder.build()?, url.clone()),
        ReadinessUrl::Unix { socket, path } => (builder.unix_socket(socket.as_path()).build()?, format!("http://localhost{path}")),
    };
    let response = client.get(&url).send().await.with_context(|| format!("{url} does not answer"))?;
    ensure!(response.status().is_success(), "{url} answers {}", response.status());
    Ok(())
}
