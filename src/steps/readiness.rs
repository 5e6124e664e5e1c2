//! Asks GitLab whether it is usable.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::Client;
use reqwest::redirect::Policy;

use crate::config::ReadinessUrl;

use super::tls;

const TIMEOUT: Duration = Duration::from_secs(5);

/// Asks once. Fails with what GitLab, or the way to it, said.
pub async fn ask(url: &ReadinessUrl) -> Result<()> {
    tls::use_ring();
    // Whoever answers there must not have root ask elsewhere.
    let builder = Client::builder().timeout(TIMEOUT).no_proxy().redirect(Policy::none());
    let (client, url) = match url {
        ReadinessUrl::Http(url) => (builder.build()?, url.clone()),
        ReadinessUrl::Unix { socket, path } => (builder.unix_socket(socket.as_path()).build()?, format!("http://localhost{path}")),
    };
    let response = client.get(&url).send().await.with_context(|| format!("{url} does not answer"))?;
    let status = response.status();
    ensure!(!status.is_redirection(), "{url} answers {status}, which is not followed: give the URL that it leads to");
    ensure!(status.is_success(), "{url} answers {status}");
    Ok(())
}
