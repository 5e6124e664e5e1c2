//! `[monitoring.healthchecks]`: pings in the format of healthchecks.io: `URL/start`, `URL` and
//! `URL/fail`, with the report in the body.

use anyhow::Result;
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;

use crate::schema::{Checker, Section};

use super::hook::{Credentials, Hook};
use super::{Monitoring, Report, ReportConfig, Reporter, Secret, System};

pub(super) use super::hook::RawHook as Raw;

const CREDENTIALS: Credentials =
    Credentials { url: "healthchecks.url", token: "healthchecks.token" };
/// Bytes of a body that every such service keeps.
const BODY_MAX: usize = 10_000;

/// The URL of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Healthchecks(pub Hook);

pub(super) fn check(
    checker: &mut Checker,
    section: &Section,
    raw: Raw,
    monitoring: &mut Monitoring,
) {
    let hook = Hook::check(checker, section, &raw, CREDENTIALS);
    monitoring.reports.push(ReportConfig::Healthchecks(Healthchecks(hook)));
}

impl Healthchecks {
    async fn ping(&self, signal: &[&str], body: String) -> Result<()> {
        let server = self.0.server()?;
        let request = server.client().post(server.below(signal)).body(body);
        self.0.send(&server, request).await
    }
}

impl System for Healthchecks {
    fn name(&self) -> &'static str {
        "healthchecks"
    }

    fn secrets(&self) -> Vec<Secret<'_>> {
        self.0.secrets()
    }

    fn probe(&self) -> LocalBoxFuture<'_, Result<String>> {
        self.0.probe().boxed_local()
    }
}

impl Reporter for Healthchecks {
    fn wants_start(&self) -> bool {
        true
    }

    fn started(&self) -> LocalBoxFuture<'_, Result<()>> {
        self.ping(&["start"], String::new()).boxed_local()
    }

    fn ended<'a>(&'a self, report: &'a Report) -> LocalBoxFuture<'a, Result<()>> {
        let signal: &[&str] = if report.success { &[] } else { &["fail"] };
        self.ping(signal, shorten(&report.text())).boxed_local()
    }
}

/// Cuts `text` to [`BODY_MAX`] bytes: the first line and the end remain.
fn shorten(text: &str) -> String {
    if text.len() <= BODY_MAX {
        return text.to_owned();
    }
    let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
    let first: String = first.chars().take(BODY_MAX / 8).collect();
    let mut from = rest.len().saturating_sub(BODY_MAX - first.len() - 8);
    while !rest.is_char_boundary(from) {
        from += 1;
    }
    format!("{first}\n…\n{}", &rest[from..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortened_body_keeps_its_first_line_and_its_end() {
        assert_eq!(shorten("a\nb\n"), "a\nb\n");
        let long = format!("failed\n{}the end", "é".repeat(BODY_MAX));
        let short = shorten(&long);
        assert!(
            short.len() <= BODY_MAX && short.starts_with("failed\n") && short.ends_with("the end"),
            "{} bytes",
            short.len()
        );
    }
}
