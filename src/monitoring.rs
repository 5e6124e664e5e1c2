//! The monitoring systems: silences that last as long as a run, and reports of how it went. A
//! system is one file (or folder): the keys of its section, their checks, its secrets, its name
//! and what it sends. `systems!` registers it.
//!
//! Knows nothing of units or of the order of a run. GitLab never depends on a monitoring system:
//! every request has a time limit.

mod alertmanager;
mod broadcast;
mod command;
mod endpoint;
mod healthchecks;
pub mod held;
mod hook;
mod http;
mod prometheus;
pub mod report;
mod retry;
mod section;
mod systems;
mod webhook;
mod zabbix;

use std::path::Path;

use anyhow::Result;
use futures_util::FutureExt;
use futures_util::future::{LocalBoxFuture, join_all, ready};
use jiff::Timestamp;

use crate::finding::Finding;
use crate::host::secret;
use crate::values::SecretSource;

pub use hook::HookUrl;
pub use report::Report;
pub use retry::retry_unreachable;
pub(crate) use section::check;
pub use section::{Monitoring, OnError};
pub use zabbix::{TEMPLATE as ZABBIX_TEMPLATE, TrapperTls};

systems::systems! {
    zabbix {
        silence Zabbix(zabbix::Maintenance);
        silence ZabbixTrapper(zabbix::MaintenanceItems);
        report ZabbixTrapper(zabbix::RunItems);
    }
    alertmanager { silence Alertmanager(alertmanager::Alertmanager); }
    broadcast { silence Broadcast(broadcast::Broadcast); }
    healthchecks { report Healthchecks(healthchecks::Healthchecks); }
    prometheus { report Prometheus(prometheus::Prometheus); }
    webhook { report Webhook(webhook::Webhook); }
    command { report Command(command::Command); }
}

/// The name of the credential as which units receive a secret, and where the secret is kept.
pub type Secret<'a> = (&'static str, &'a SecretSource);

/// What silences and reports have in common.
pub trait System {
    /// The name in messages and records.
    fn name(&self) -> &'static str;

    /// The secrets that requests need.
    fn secrets(&self) -> Vec<Secret<'_>> {
        Vec::new()
    }

    /// Checks what can be checked without changing or sending anything, and describes the result.
    fn probe(&self) -> LocalBoxFuture<'_, Result<String>>;
}

/// A system that can be silenced. Every call may be repeated without further effect.
pub trait Silence: System {
    /// Begins the silence, or extends one that has begun. `id` is what an earlier call returned.
    fn begin<'a>(
        &'a self,
        span: &'a Span,
        id: Option<&'a str>,
    ) -> LocalBoxFuture<'a, Result<Option<String>>>;

    /// Whether the silence has taken effect.
    fn in_effect(&self) -> LocalBoxFuture<'_, Result<bool>> {
        ready(Ok(true)).boxed_local()
    }

    /// Ends the silence. A silence that does not exist is not an error.
    fn end<'a>(&'a self, id: Option<&'a str>) -> LocalBoxFuture<'a, Result<()>>;

    /// Whether the silence outlasts the run by the grace period.
    fn has_grace(&self) -> bool {
        true
    }
}

/// A receiver of reports.
pub trait Reporter: System {
    /// Whether the receiver is notified of the start of a run.
    fn wants_start(&self) -> bool {
        false
    }

    /// Reports that a run has started.
    fn started(&self) -> LocalBoxFuture<'_, Result<()>> {
        ready(Ok(())).boxed_local()
    }

    /// Reports that a run has ended.
    fn ended<'a>(&'a self, report: &'a Report) -> LocalBoxFuture<'a, Result<()>>;

    /// The file that a report replaces.
    fn file(&self) -> Option<&Path> {
        None
    }

    /// The admin's program that a report is passed to.
    fn program(&self) -> Option<&str> {
        None
    }
}

/// The period of a silence.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    /// The begin: now.
    pub from: Timestamp,
    /// When the silence expires if nothing ends it earlier.
    pub until: Timestamp,
    /// Seconds for which GitLab was down in the last complete run.
    pub downtime: Option<f64>,
}

/// Probes every configured system, all at the same time.
pub async fn probe(monitoring: &Monitoring) -> Vec<Finding> {
    let required = monitoring.on_error == OnError::Abort;
    let silences = monitoring.silences.iter().map(|silence| {
        let system = silence.system();
        probe_system(format!("silence by {}", system.name()), system, required)
    });
    let reports = monitoring.reports.iter().map(|report| {
        let system = report.system();
        probe_system(format!("report by {}", system.name()), system, false)
    });
    join_all(silences.chain(reports)).await
}

/// A failed probe is an error only if runs require the system.
async fn probe_system(what: String, system: &dyn System, required: bool) -> Finding {
    let mut secrets = system.secrets().into_iter();
    if secrets.any(|(_, source)| secret::is_out_of_reach(source)) {
        return Finding::warning(what, secret::OUT_OF_REACH);
    }
    match retry_unreachable(|| system.probe()).await {
        Err(error) if !required => Finding::warning(what, format!("{error:#}")),
        result => Finding::of(what, result),
    }
}
