//! The report as JSON to any URL.

use anyhow::{Context, Result};
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use reqwest::header::AUTHORIZATION;

use crate::config::monitoring::{Hook, credential};
use crate::host::secret;

use super::healthchecks::reach;
use super::http::{Server, secret_header};
use super::{Report, Reporter, accepted};

/// The URL.
pub(super) struct Webhook<'a>(pub(super) &'a Hook);

impl Webhook<'_> {
    async fn post(&self, report: &Report) -> Result<()> {
        let server = Server::of_hook(self.0, credential::WEBHOOK_URL)?;
        let mut request = server.client().post(server.url().clone()).json(report);
        if let Some(source) = &self.0.token {
            let token = secret::read(source, credential::WEBHOOK_TOKEN)?;
            request = request.header(AUTHORIZATION, secret_header(&format!("Bearer {token}"))?);
        }
        accepted(&server.ask(request).await?).with_context(|| server.shown().to_owned())
    }
}

impl Reporter for Webhook<'_> {
    fn ended<'a>(&'a self, report: &'a Report) -> LocalBoxFuture<'a, Result<()>> {
        self.post(report).boxed_local()
    }

    fn probe(&self) -> LocalBoxFuture<'_, Result<String>> {
        reach(self.0, credential::WEBHOOK_URL).boxed_local()
    }
}
