//! Requests the readiness URL, which answers with success when GitLab is usable.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use reqwest::Client;
use reqwest::redirect::Policy;

use crate::config::ReadinessUrl;
use crate::host::tls;

const TIMEOUT: Duration = Duration::from_secs(5);

/// A GitLab whose readiness can be requested; tests replace it.
#[async_trait(?Send)]
pub trait Answer {
    /// Requests it once.
    ///
    /// # Errors
    /// If GitLab cannot be reached or answers with another status than success.
    async fn ask(&self) -> Result<()>;
}

/// The readiness URL with a client for several requests. A new client reads the certificates of the
/// system each time.
pub struct Readiness {
    client: Client,
    url: String,
}

impl Readiness {
    /// Creates the client. Sends no request.
    ///
    /// # Errors
    /// If the system's certificates cannot be used.
    pub fn of(url: &ReadinessUrl) -> Result<Self> {
        tls::use_ring();
        // No redirects: the server must not choose the URLs that root requests.
        let builder = Client::builder().timeout(TIMEOUT).no_proxy().redirect(Policy::none());
        let (client, url) = match url {
            ReadinessUrl::Http(url) => (builder.build()?, url.clone()),
            ReadinessUrl::Unix { socket, path } => {
                (builder.unix_socket(socket.as_path()).build()?, format!("http://localhost{path}"))
            }
        };
        Ok(Self { client, url })
    }
}

#[async_trait(?Send)]
impl Answer for Readiness {
    async fn ask(&self) -> Result<()> {
        let url = &self.url;
        let response =
            self.client.get(url).send().await.with_context(|| format!("{url} does not answer"))?;
        let status = response.status();
        ensure!(
            !status.is_redirection(),
            "{url} answers {status}, which is not followed: give the URL that it leads to"
        );
        ensure!(status.is_success(), "{url} answers {status}");
        Ok(())
    }
}

/// Requests it once.
///
/// # Errors
/// If GitLab cannot be reached or answers with another status than success.
pub async fn ask(url: &ReadinessUrl) -> Result<()> {
    Readiness::of(url)?.ask().await
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_redirect_is_an_error_and_not_followed() {
        let (server, elsewhere) =
            (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        let (address, there) = (server.local_addr().unwrap(), elsewhere.local_addr().unwrap());
        let answers = |listener: TcpListener, answer: String| {
            std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let _ = stream.read(&mut [0; 4096]).unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
            })
        };
        answers(
            server,
            format!(
                "HTTP/1.1 302 Found\r\nLocation: http://{there}/\r\nContent-Length: \
                 0\r\nConnection: close\r\n\r\n"
            ),
        );
        let asked = answers(
            elsewhere,
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned(),
        );
        let error =
            ask(&ReadinessUrl::Http(format!("http://{address}/-/readiness"))).await.unwrap_err();
        assert!(error.to_string().contains("which is not followed"), "{error:#}");
        assert!(!asked.is_finished());
    }
}
