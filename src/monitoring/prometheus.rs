//! `[monitoring.prometheus]`: a file for the node exporter's textfile collector, replaced
//! atomically.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use futures_util::FutureExt;
use futures_util::future::{LocalBoxFuture, ready};
use serde::Deserialize;

use crate::host::beneath::Directory;
use crate::schema::rules::{self, Refusal};
use crate::schema::{Checker, Field, Section};

use super::{Monitoring, Report, ReportConfig, Reporter, System};

const ALLOWED: &str =
    "the absolute path of a .prom file in the node exporter's --collector.textfile.directory";

/// `[monitoring.prometheus]` as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Raw {
    textfile: Field<String>,
}

/// A file for the node exporter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prometheus {
    /// Absolute, its extension `.prom`.
    pub textfile: PathBuf,
}

pub(super) fn check(
    checker: &mut Checker,
    section: &Section,
    raw: Raw,
    monitoring: &mut Monitoring,
) {
    if raw.textfile.is_none() {
        checker.refuse(&section.place("textfile"), Refusal::new("is missing", ALLOWED));
    }
    let path = checker.value(section, "textfile", raw.textfile.as_ref(), |text| {
        let path = rules::path(text)?;
        match path.extension().is_some_and(|extension| extension == "prom") {
            true => Ok(path),
            false => Err(Refusal::new(
                format!("'{text}' is not read by the node exporter: it reads only *.prom"),
                ALLOWED,
            )),
        }
    });
    let report = path.map(|textfile| ReportConfig::Prometheus(Prometheus { textfile }));
    monitoring.reports.extend(report);
}

impl Prometheus {
    fn write(&self, report: &Report) -> Result<()> {
        // The directory often belongs to the exporter's user.
        let (directory, name) = Directory::of(&self.textfile)?;
        directory.replace(&name, metrics(report).as_bytes(), 0o644)
    }

    fn probe_directory(&self) -> Result<String> {
        let directory = self.textfile.parent().context("no directory")?;
        Directory::open(directory).context("create it")?;
        Ok(format!("{} is there", directory.display()))
    }
}

impl System for Prometheus {
    fn name(&self) -> &'static str {
        "prometheus"
    }

    fn probe(&self) -> LocalBoxFuture<'_, Result<String>> {
        ready(self.probe_directory()).boxed_local()
    }
}

impl Reporter for Prometheus {
    fn ended<'a>(&'a self, report: &'a Report) -> LocalBoxFuture<'a, Result<()>> {
        ready(self.write(report)).boxed_local()
    }

    fn file(&self) -> Option<&Path> {
        Some(&self.textfile)
    }
}

/// The report in the text format, <https://prometheus.io/docs/instrumenting/exposition_formats/>.
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
        "0 success, 1 complete but a later step failed, 2 failed",
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
    metric("size_bytes", "Bytes in the last run, by part", by_part(|part| part.bytes as f64));
    metric("files", "Files in the last run, by part", by_part(|part| part.files as f64));
    metric("part_duration_seconds", "How long storing took, by part", by_part(|part| part.seconds));
    text
}
