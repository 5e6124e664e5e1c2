//! `[monitoring.webhook]`: posts the report as JSON to a URL.

use anyhow::Result;
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;

use crate::schema::{Checker, Section};

use super::hook::{Credentials, Hook};
use super::{Monitoring, Report, ReportConfig, Reporter, Secret, System};

pub(super) use super::hook::RawHook as Raw;

const CREDENTIALS: Credentials = Credentials { url: "webhook.url", token: "webhook.token" };

/// A URL that receives the report as JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook(pub Hook);

pub(super) fn check(
    checker: &mut Checker,
    section: &Section,
    raw: Raw,
    monitoring: &mut Monitoring,
) {
    let hook = Hook::check(checker, section, &raw, CREDENTIALS);
    monitoring.reports.push(ReportConfig::Webhook(Webhook(hook)));
}

impl Webhook {
    async fn post(&self, report: &Report) -> Result<()> {
        let server = self.0.server()?;
        let request = server.client().post(server.url().clone()).json(report);
        self.0.send(&server, request).await
    }
}

impl System for Webhook {
    fn name(&self) -> &'static str {
        "webhook"
    }

    fn secrets(&self) -> Vec<Secret<'_>> {
        self.0.secrets()
    }

    fn probe(&self) -> LocalBoxFuture<'_, Result<String>> {
        self.0.probe().boxed_local()
    }
}

impl Reporter for Webhook {
    fn ended<'a>(&'a self, report: &'a Report) -> LocalBoxFuture<'a, Result<()>> {
        self.post(report).boxed_local()
    }
}
