//! Asks GitLab whether it is usable.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::Client;

use crate::config::ReadinessUrl;

use super::tls;

const TIMEOUT: Duration = Duration::from_secs(5);

/// Asks once. Fails with what GitLab, or the way to it, said.
pub async fn ask(url: &ReadinessUrl) -> Result<()> {
    tls::use_ring();
    let builder = Client::builder().timeout(TIMEOUT).no_proxy();
    let (client, url) = match url {
        ReadinessUrl::Http(url) => (builder.build()?, url.clone()),
        ReadinessUrl::Unix { socket, path } => (builder.unix_socket(socket.as_path()).build()?, format!("http://localhost{path}")),
    };
    let response = client.get(&url).send().await.with_context(|| format!("{url} does not answer"))?;
    ensure!(response.status().is_success(), "{url} answers {}", response.status());
    Ok(())
}
