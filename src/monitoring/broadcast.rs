//! GitLab's own broadcast message: its users are told before they are kept out.

use anyhow::{Context, Result};
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use jiff::{Timestamp, tz::TimeZone};
use reqwest::{RequestBuilder, StatusCode};
use serde::Deserialize;
use serde_json::json;

use crate::config::monitoring::{Broadcast, credential};
use crate::host::secret;

use super::http::{Answer, Server, secret_header};
use super::{Silence, Span, accepted};

/// Where GitLab has them.
const MESSAGES: [&str; 3] = ["api", "v4", "broadcast_messages"];

/// The message.
pub(super) struct Messenger<'a>(pub(super) &'a Broadcast);

#[derive(Deserialize)]
struct Message {
    id: u64,
    message: String,
    #[serde(default)]
    active: bool,
}

#[derive(Deserialize)]
struct Version {
    version: String,
}

impl Messenger<'_> {
    async fn ask(&self, server: &Server, request: RequestBuilder) -> Result<Answer> {
        let token = secret::read(&self.0.token, credential::BROADCAST_TOKEN)?;
        let answer = server.ask(request.header("PRIVATE-TOKEN", secret_header(&token)?)).await?;
        Ok(answer)
    }

    async fn accepted(&self, server: &Server, request: RequestBuilder) -> Result<Answer> {
        let answer = self.ask(server, request).await?;
        accepted(&answer).with_context(|| {
            format!(
                "{} (the token needs scope api, and its user to be an administrator)",
                server.shown()
            )
        })?;
        Ok(answer)
    }

    async fn show(&self, span: &Span, id: Option<&str>) -> Result<Option<String>> {
        let server = Server::new(&self.0.endpoint)?;
        let message = filled(&self.0.message, span);
        let body = json!({
            "message": message,
            "starts_at": span.from.to_string(),
            "ends_at": span.until.to_string(),
            "dismissable": true,
        });
        if let Some(id) = id {
            // Only its end is moved: the time that users were told stays the same.
            let request = server
                .client()
                .put(server.below(&[&MESSAGES[..], &[id]].concat()))
                .json(&json!({"ends_at": body["ends_at"]}));
            let answer = self.ask(&server, request).await?;
            if answer.status != StatusCode::NOT_FOUND {
                accepted(&answer).with_context(|| server.shown().to_owned())?;
                return Ok(Some(id.to_owned()));
            }
        }
        let answer = self.ask(&server, server.client().get(server.below(&MESSAGES))).await?;
        accepted(&answer).with_context(|| server.shown().to_owned())?;
        let shown: Vec<Message> = answer.json()?;
        // The answer to an earlier attempt may have been lost.
        if let Some(same) = shown.iter().find(|shown| shown.active && shown.message == message) {
            return Ok(Some(same.id.to_string()));
        }
        let made: Message = self
            .accepted(&server, server.client().post(server.below(&MESSAGES)).json(&body))
            .await?
            .json()?;
        Ok(Some(made.id.to_string()))
    }

    async fn remove(&self, id: Option<&str>) -> Result<()> {
        let Some(id) = id else { return Ok(()) };
        let server = Server::new(&self.0.endpoint)?;
        let answer = self
            .ask(&server, server.client().delete(server.below(&[&MESSAGES[..], &[id]].concat())))
            .await?;
        match answer.status {
            StatusCode::NOT_FOUND => Ok(()),
            _ => accepted(&answer).with_context(|| server.shown().to_owned()),
        }
    }

    async fn look(&self) -> Result<String> {
        let server = Server::new(&self.0.endpoint)?;
        let version: Version = self
            .accepted(&server, server.client().get(server.below(&["api", "v4", "version"])))
            .await?
            .json()?;
        Ok(format!(
            "GitLab {}; whether the token's user is an administrator shows when it is used",
            version.version
        ))
    }
}

impl Silence for Messenger<'_> {
    fn begin<'a>(
        &'a self,
        span: &'a Span,
        id: Option<&'a str>,
    ) -> LocalBoxFuture<'a, Result<Option<String>>> {
        self.show(span, id).boxed_local()
    }

    fn end<'a>(&'a self, id: Option<&'a str>) -> LocalBoxFuture<'a, Result<()>> {
        self.remove(id).boxed_local()
    }

    /// Nobody should read of a backup that is over.
    fn has_grace(&self) -> bool {
        false
    }

    fn probe(&self) -> LocalBoxFuture<'_, Result<String>> {
        self.look().boxed_local()
    }
}

fn filled(text: &str, span: &Span) -> String {
    let time = clock(span.from, &TimeZone::system());
    let downtime = match span.downtime {
        Some(seconds) if seconds < 90.0 => {
            format!("about {} seconds", (seconds.max(1.0) / 5.0).ceil() * 5.0)
        }
        Some(seconds) => format!("about {} minutes", (seconds / 60.0).ceil()),
        None => "a short time".to_owned(),
    };
    text.replace("{time}", &time).replace("{downtime}", &downtime)
}

fn clock(at: Timestamp, zone: &TimeZone) -> String {
    at.to_zoned_datetime(zone.clone()).strftime("%H:%M").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_says_when_and_for_how_long() {
        let from: Timestamp = "2026-11-24T02:30:10Z".parse().unwrap();
        assert_eq!(clock(from, &TimeZone::UTC), "02:30");
        for (downtime, expected) in [
            (Some(17.2), "about 20 seconds"),
            (Some(0.3), "about 5 seconds"),
            (Some(100.0), "about 2 minutes"),
            (None, "a short time"),
        ] {
            assert_eq!(filled("{downtime}", &Span { from, until: from, downtime }), expected);
        }
    }
}
