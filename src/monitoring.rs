//! Who is told of a run: systems that are to be silent while it goes on, and those that hear how it
//! went. One file per system, behind two traits; adding one is a file and a line here.
//!
//! Knows nothing of units and of the order of a run. GitLab never depends on anything in here:
//! every call has a time limit.

mod alertmanager;
mod broadcast;
mod command;
mod healthchecks;
pub mod held;
mod http;
mod prometheus;
pub mod report;
mod retry;
mod webhook;
mod zabbix;

use anyhow::{Result, ensure};
use futures_util::FutureExt;
use futures_util::future::{LocalBoxFuture, join_all, ready};
use jiff::Timestamp;

use crate::config::Config;
use crate::config::monitoring::{OnError, ReportConfig, SilenceConfig};
use crate::finding::Finding;
use crate::host::secret;
use crate::values::SecretSource;

pub use report::Report;
pub use retry::patiently;

/// The items that runs are reported to, for Zabbix to import.
pub const ZABBIX_TEMPLATE: &str = include_str!("monitoring/zabbix/template.yaml");

/// From when until when, and what is expected of it.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    /// Now.
    pub from: Timestamp,
    /// When it is over by itself, should nobody end it.
    pub until: Timestamp,
    /// Seconds for which the last complete run had GitLab down.
    pub downtime: Option<f64>,
}

/// A system that can be kept silent. Everything in here may be done again, and changes nothing
/// then.
pub trait Silence {
    /// Begins, or goes on until another end. `id` is what an earlier begin returned.
    fn begin<'a>(
        &'a self,
        span: &'a Span,
        id: Option<&'a str>,
    ) -> LocalBoxFuture<'a, Result<Option<String>>>;

    /// Whether it has taken effect.
    fn in_effect(&self) -> LocalBoxFuture<'_, Result<bool>> {
        ready(Ok(true)).boxed_local()
    }

    /// Ends it. That there is none is fine.
    fn end<'a>(&'a self, id: Option<&'a str>) -> LocalBoxFuture<'a, Result<()>>;

    /// Whether it outlives the run by the grace period.
    fn has_grace(&self) -> bool {
        true
    }

    /// What can be seen of it without changing anything.
    fn probe(&self) -> LocalBoxFuture<'_, Result<String>>;
}

/// One way to tell how a run went.
pub trait Reporter {
    /// A run has begun.
    fn begun(&self) -> LocalBoxFuture<'_, Result<()>> {
        ready(Ok(())).boxed_local()
    }

    /// A run has ended.
    fn ended<'a>(&'a self, report: &'a Report) -> LocalBoxFuture<'a, Result<()>>;

    /// What can be seen of it without telling anything.
    fn probe(&self) -> LocalBoxFuture<'_, Result<String>>;
}

/// The system behind a configured silence.
pub fn silence(config: &SilenceConfig) -> Box<dyn Silence + '_> {
    match config {
        SilenceConfig::Zabbix(api) => Box::new(zabbix::Maintenance(api)),
        SilenceConfig::ZabbixTrapper(items) => Box::new(zabbix::Items(items)),
        SilenceConfig::Alertmanager(alertmanager) => Box::new(alertmanager::Silencer(alertmanager)),
        SilenceConfig::Broadcast(broadcast) => Box::new(broadcast::Messenger(broadcast)),
    }
}

/// The system behind a configured report.
pub fn reporter(config: &ReportConfig) -> Box<dyn Reporter + '_> {
    match config {
        ReportConfig::ZabbixTrapper(trapper) => Box::new(zabbix::Values(trapper)),
        ReportConfig::Healthchecks(hook) => Box::new(healthchecks::Pings(hook)),
        ReportConfig::Prometheus(path) => Box::new(prometheus::Textfile(path)),
        ReportConfig::Webhook(hook) => Box::new(webhook::Webhook(hook)),
        ReportConfig::Command { argv, timeout } => {
            Box::new(command::Program { argv, timeout: timeout.duration() })
        }
    }
}

/// What can be seen of every configured system, all of them asked at once. Changes nothing
/// anywhere.
pub async fn probe(config: &Config) -> Vec<Finding> {
    let required = config.monitoring.on_error == OnError::Abort;
    let silences = config.monitoring.silences.iter().map(|config| {
        async move {
            let what = format!("silence by {}", config.name());
            match out_of_reach(&config.secrets()) {
                Some(finding) => Finding::warning(what, finding),
                None => finding(
                    what,
                    required,
                    patiently(|| async { silence(config).probe().await }).await,
                ),
            }
        }
        .boxed_local()
    });
    let reports = config.monitoring.reports.iter().map(|config| {
        async move {
            let what = format!("report by {}", config.name());
            match out_of_reach(&config.secrets()) {
                Some(finding) => Finding::warning(what, finding),
                None => finding(
                    what,
                    false,
                    patiently(|| async { reporter(config).probe().await }).await,
                ),
            }
        }
        .boxed_local()
    });
    join_all(silences.chain(reports)).await
}

fn out_of_reach(secrets: &[(&'static str, &SecretSource)]) -> Option<&'static str> {
    secrets
        .iter()
        .any(|(_, source)| secret::is_out_of_reach(source))
        .then_some(secret::OUT_OF_REACH)
}

/// What a run can do without is no more than a warning.
fn finding(what: String, required: bool, seen: Result<String>) -> Finding {
    match seen {
        Err(error) if !required => Finding::warning(what, format!("{error:#}")),
        seen => Finding::of(what, seen),
    }
}

/// The answer of a server that did as it was asked, else its own words.
fn accepted(answer: &http::Answer) -> Result<()> {
    ensure!(answer.status.is_success(), "it answers {}: {}", answer.status, answer.excerpt());
    Ok(())
}
