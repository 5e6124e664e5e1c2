//! Pings as healthchecks.io has them: `URL/start`, `URL`, `URL/fail`, with what happened in the
//! body.

use anyhow::{Context, Result};
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use reqwest::header::AUTHORIZATION;

use crate::config::monitoring::{Hook, credential};
use crate::host::secret;

use super::http::{Server, secret_header};
use super::{Report, Reporter, accepted};

/// What the smallest of these services keeps of a body.
const BODY_MAX: usize = 10_000;

/// A check's URL.
pub(super) struct Pings<'a>(pub(super) &'a Hook);

impl Pings<'_> {
    async fn ping(&self, signal: &[&str], body: String) -> Result<()> {
        let server = Server::of_hook(self.0, credential::HEALTHCHECKS_URL)?;
        let mut request = server.client().post(server.below(signal)).body(body);
        if let Some(source) = &self.0.token {
            let token = secret::read(source, credential::HEALTHCHECKS_TOKEN)?;
            request = request.header(AUTHORIZATION, secret_header(&format!("Bearer {token}"))?);
        }
        accepted(&server.ask(request).await?).with_context(|| server.shown().to_owned())
    }
}

impl Reporter for Pings<'_> {
    fn begun(&self) -> LocalBoxFuture<'_, Result<()>> {
        self.ping(&["start"], String::new()).boxed_local()
    }

    fn ended<'a>(&'a self, report: &'a Report) -> LocalBoxFuture<'a, Result<()>> {
        let signal: &[&str] = if report.success { &[] } else { &["fail"] };
        self.ping(signal, shortened(&report.text())).boxed_local()
    }

    fn probe(&self) -> LocalBoxFuture<'_, Result<String>> {
        reach(self.0, credential::HEALTHCHECKS_URL).boxed_local()
    }
}

/// That the server is there; the URL itself is not touched.
pub(super) async fn reach(hook: &Hook, credential: &str) -> Result<String> {
    let server = Server::of_hook(hook, credential)?;
    let answer = server.ask(server.client().get(server.root())).await?;
    Ok(format!(
        "{} is there (answers {}); whether the URL is right shows with the next run",
        server.shown(),
        answer.status
    ))
}

/// The first line and the end.
fn shortened(text: &str) -> String {
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
    fn a_body_keeps_what_happened_and_the_end() {
        assert_eq!(shortened("a\nb\n"), "a\nb\n");
        let long = format!("failed\n{}the end", "é".repeat(BODY_MAX));
        let short = shortened(&long);
        assert!(
            short.len() <= BODY_MAX && short.starts_with("failed\n") && short.ends_with("the end"),
            "{} bytes",
            short.len()
        );
    }
}
