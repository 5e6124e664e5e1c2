//! Zabbix: a maintenance by its API, and values for trapper items.

mod api;
mod maintenance;
mod trapper;

use anyhow::Result;
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;

use crate::config::monitoring::{Trapper, TrapperSilence};

use super::{Report, Reporter, Silence, Span};

pub(super) use maintenance::Maintenance;

/// Items that are 1 during maintenance and 0 else.
pub(super) struct Items<'a>(pub(super) &'a TrapperSilence);

impl Items<'_> {
    async fn send(&self, value: &str) -> Result<()> {
        let values: Vec<(&str, String)> =
            self.0.items.iter().map(|key| (key.as_str(), value.to_owned())).collect();
        trapper::send(&self.0.trapper, &values).await
    }
}

impl Silence for Items<'_> {
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

    fn probe(&self) -> LocalBoxFuture<'_, Result<String>> {
        trapper::probe(&self.0.trapper).boxed_local()
    }
}

/// How a run went, as the items of the template beside the documentation.
pub(super) struct Values<'a>(pub(super) &'a Trapper);

impl Reporter for Values<'_> {
    fn ended<'a>(&'a self, report: &'a Report) -> LocalBoxFuture<'a, Result<()>> {
        async {
            let mut values = vec![("gitlab.backup.status", report.status().to_string())];
            values.extend(
                report
                    .duration_seconds
                    .map(|seconds| ("gitlab.backup.duration", format!("{seconds:.3}"))),
            );
            values.extend(
                report
                    .downtime_seconds
                    .map(|seconds| ("gitlab.backup.downtime", format!("{seconds:.3}"))),
            );
            values.extend(report.bytes().map(|bytes| ("gitlab.backup.bytes", bytes.to_string())));
            trapper::send(self.0, &values).await
        }
        .boxed_local()
    }

    fn probe(&self) -> LocalBoxFuture<'_, Result<String>> {
        trapper::probe(self.0).boxed_local()
    }
}
