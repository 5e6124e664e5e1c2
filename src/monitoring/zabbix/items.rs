//! Trapper items: those that are 1 during maintenance, and those with the results of a run.

use anyhow::Result;
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use serde::{Deserialize, Serialize};

use super::super::{Report, Reporter, Secret, Silence, Span, System};
use super::trapper::Trapper;

/// Both silence and report have this name.
const NAME: &str = "zabbix-trapper";

/// Items that are 1 during maintenance and 0 otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MaintenanceItems {
    /// The servers, and the host that the items belong to.
    pub trapper: Trapper,
    /// The keys of the items.
    pub items: Vec<String>,
}

impl MaintenanceItems {
    async fn send(&self, value: &str) -> Result<()> {
        let values: Vec<(&str, String)> =
            self.items.iter().map(|key| (key.as_str(), value.to_owned())).collect();
        self.trapper.send(&values).await
    }
}

impl System for MaintenanceItems {
    fn name(&self) -> &'static str {
        NAME
    }

    fn secrets(&self) -> Vec<Secret<'_>> {
        self.trapper.secrets()
    }

    fn probe(&self) -> LocalBoxFuture<'_, Result<String>> {
        self.trapper.probe().boxed_local()
    }
}

impl Silence for MaintenanceItems {
    fn begin<'a>(
        &'a self,
        _: &'a Span,
        _: Option<&'a str>,
    ) -> LocalBoxFuture<'a, Result<Option<String>>> {
        async { self.send("1").await.map(|()| None) }.boxed_local()
    }

    fn end<'a>(&'a self, _: Option<&'a str>) -> LocalBoxFuture<'a, Result<()>> {
        self.send("0").boxed_local()
    }
}

/// The results of a run, in the items of [`TEMPLATE`](super::TEMPLATE).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunItems {
    /// The servers, and the host that the items belong to.
    pub trapper: Trapper,
}

impl System for RunItems {
    fn name(&self) -> &'static str {
        NAME
    }

    fn secrets(&self) -> Vec<Secret<'_>> {
        self.trapper.secrets()
    }

    fn probe(&self) -> LocalBoxFuture<'_, Result<String>> {
        self.trapper.probe().boxed_local()
    }
}

impl Reporter for RunItems {
    fn ended<'a>(&'a self, report: &'a Report) -> LocalBoxFuture<'a, Result<()>> {
        let seconds = |seconds: f64| format!("{seconds:.3}");
        let values = [
            ("gitlab.backup.status", Some(report.status().to_string())),
            ("gitlab.backup.duration", report.duration_seconds.map(seconds)),
            ("gitlab.backup.downtime", report.downtime_seconds.map(seconds)),
            ("gitlab.backup.bytes", report.bytes().map(|bytes| bytes.to_string())),
        ];
        let known: Vec<(&str, String)> =
            values.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
        async move { self.trapper.send(&known).await }.boxed_local()
    }
}
