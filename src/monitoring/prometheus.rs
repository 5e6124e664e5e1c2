//! A file for the node exporter's textfile collector, replaced as a whole.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use futures_util::FutureExt;
use futures_util::future::{LocalBoxFuture, ready};

use crate::host::beneath::Directory;

use super::{Report, Reporter};

/// The file.
pub(super) struct Textfile<'a>(pub(super) &'a Path);

impl Textfile<'_> {
    fn write(&self, report: &Report) -> Result<()> {
        // The directory is often the exporter's own.
        let (directory, name) = Directory::of(self.0)?;
        directory.replace(&name, metrics(report).as_bytes(), 0o644)
    }

    fn look(&self) -> Result<String> {
        let directory = self.0.parent().context("no directory")?;
        Directory::open(directory).context("make it")?;
        Ok(format!("{} is there", directory.display()))
    }
}

impl Reporter for Textfile<'_> {
    fn ended<'a>(&'a self, report: &'a Report) -> LocalBoxFuture<'a, Result<()>> {
        ready(self.write(report)).boxed_local()
    }

    fn probe(&self) -> LocalBoxFuture<'_, Result<String>> {
        ready(self.look()).boxed_local()
    }
}

/// The text format, https://prometheus.io/docs/instrumenting/exposition_formats/.
fn metrics(report: &Report) -> String {
    let mut text = String::new();
    let mut metric = |name: &str, help: &str, values: Vec<(String, f64)>| {
        if !values.is_empty() {
            let _ = writeln!(
                text,
                "# HELP gitlab_backup_{name} {help}\n# TYPE gitlab_backup_{name} gauge"
            );
        }
        for (labels, value) in values {
            let _ = writeln!(text, "gitlab_backup_{name}{labels} {value}");
        }
    };
    let plain = |value: Option<f64>| {
        value.map(|value| (String::new(), value)).into_iter().collect::<Vec<_>>()
    };
    let by_part = |value: fn(&crate::runs::Part) -> f64| {
        report
            .parts
            .iter()
            .map(|part| (format!("{{part=\"{}\"}}", part.name), value(part)))
            .collect::<Vec<_>>()
    };
    let seconds = |at: jiff::Timestamp| at.as_millisecond() as f64 / 1000.0;
    metric(
        "last_run_status",
        "0 well, 1 complete but something after it failed, 2 failed",
        plain(Some(f64::from(report.status()))),
    );
    metric(
        "last_run_timestamp_seconds",
        "When the last run ended",
        plain(Some(seconds(report.finished))),
    );
    metric(
        "last_success_timestamp_seconds",
        "When the last complete run ended",
        plain(report.last_complete.map(seconds)),
    );
    metric("duration_seconds", "How long the last run took", plain(report.duration_seconds));
    metric(
        "downtime_seconds",
        "How long GitLab was down in the last run",
        plain(report.downtime_seconds),
    );
    metric("size_bytes", "Content in the last run, by part", by_part(|part| part.bytes as f64));
    metric("files", "Files in the last run, by part", by_part(|part| part.files as f64));
    metric("part_duration_seconds", "How long storing took, by part", by_part(|part| part.seconds));
    text
}
