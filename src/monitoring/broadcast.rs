//! `[monitoring.broadcast]`: a broadcast message in GitLab, which announces the downtime to its
//! users.

use anyhow::{Context, Result};
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use jiff::{Timestamp, tz::TimeZone};
use reqwest::{RequestBuilder, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::host::secret;
use crate::schema::rules::{self, Refusal};
use crate::schema::{Checker, Field, Section};
use crate::values::SecretSource;

use super::endpoint::{Endpoint, check_token};
use super::http::{HttpAnswer, Server, secret_header};
use super::{Monitoring, Secret, Silence, SilenceConfig, Span, System};

/// The credential with the token.
const CREDENTIAL: &str = "broadcast.token";
const MESSAGE: &str = "Backup at {time}: GitLab will be away for {downtime}";
/// The path of the broadcast messages in GitLab's API.
const MESSAGES: [&str; 3] = ["api", "v4", "broadcast_messages"];

/// `[monitoring.broadcast]` as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Raw {
    url: Field<String>,
    ca_file: Field<String>,
    proxy: Field<String>,
    token_file: Field<String>,
    token_credential: Field<String>,
    message: Field<String>,
}

/// A broadcast message in GitLab.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Broadcast {
    /// GitLab's URL without `/api/v4`.
    pub endpoint: Endpoint,
    /// The token of an administrator, with scope `api`.
    pub token: SecretSource,
    /// The text, with the placeholders `{time}` and `{downtime}`.
    pub message: String,
}

pub(super) fn check(
    checker: &mut Checker,
    section: &Section,
    raw: Raw,
    monitoring: &mut Monitoring,
) {
    let silence = Broadcast {
        endpoint: Endpoint::check(checker, section, ("url", &raw.url), &raw.ca_file, &raw.proxy),
        token: check_token(checker, section, &raw.token_file, &raw.token_credential),
        message: checker
            .value(section, "message", raw.message.as_ref(), |text| message(text))
            .unwrap_or_else(|| MESSAGE.to_owned()),
    };
    monitoring.silences.push(SilenceConfig::Broadcast(silence));
}

/// One line of text without unknown placeholders.
fn message(text: &str) -> Result<String, Refusal> {
    let text = rules::one_line(text)?;
    match text.replace("{time}", "").replace("{downtime}", "").contains(['{', '}']) {
        true => Err(Refusal::new(
            format!("'{text}' has an unknown placeholder"),
            "{time} and {downtime}",
        )),
        false => Ok(text),
    }
}

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

impl Broadcast {
    /// Sends a request with the token.
    async fn send(&self, server: &Server, request: RequestBuilder) -> Result<HttpAnswer> {
        let token = secret::read(&self.token, CREDENTIAL)?;
        let answer = server.send(request.header("PRIVATE-TOKEN", secret_header(&token)?)).await?;
        Ok(answer)
    }

    /// Sends a request for which the user must be an administrator, and fails unless the answer is
    /// a success.
    async fn send_as_administrator(
        &self,
        server: &Server,
        request: RequestBuilder,
    ) -> Result<HttpAnswer> {
        let answer = self.send(server, request).await?;
        answer.accepted().with_context(|| {
            format!(
                "{} (the token needs scope api, and its user to be an administrator)",
                server.shown()
            )
        })?;
        Ok(answer)
    }

    /// Creates the message, or extends the one that exists. Returns its id.
    async fn create_or_extend(&self, span: &Span, id: Option<&str>) -> Result<Option<String>> {
        let server = Server::of(&self.endpoint)?;
        let message = fill(&self.message, span);
        let body = json!({
            "message": message,
            "starts_at": span.from.to_string(),
            "ends_at": span.until.to_string(),
            "dismissable": true,
        });
        if let Some(id) = id {
            // Only the end changes: the text keeps the time that users have read.
            let request = server
                .client()
                .put(server.below(&[&MESSAGES[..], &[id]].concat()))
                .json(&json!({"ends_at": body["ends_at"]}));
            let answer = self.send(&server, request).await?;
            if answer.status != StatusCode::NOT_FOUND {
                answer.accepted().with_context(|| server.shown().to_owned())?;
                return Ok(Some(id.to_owned()));
            }
        }
        let answer = self.send(&server, server.client().get(server.below(&MESSAGES))).await?;
        answer.accepted().with_context(|| server.shown().to_owned())?;
        let messages: Vec<Message> = answer.json()?;
        // An earlier attempt may have created it, but its answer was lost.
        if let Some(same) = messages.iter().find(|other| other.active && other.message == message) {
            return Ok(Some(same.id.to_string()));
        }
        let created: Message = self
            .send_as_administrator(
                &server,
                server.client().post(server.below(&MESSAGES)).json(&body),
            )
            .await?
            .json()?;
        Ok(Some(created.id.to_string()))
    }

    /// Deletes the message, if it exists.
    async fn delete(&self, id: Option<&str>) -> Result<()> {
        let Some(id) = id else { return Ok(()) };
        let server = Server::of(&self.endpoint)?;
        let answer = self
            .send(&server, server.client().delete(server.below(&[&MESSAGES[..], &[id]].concat())))
            .await?;
        match answer.status {
            StatusCode::NOT_FOUND => Ok(()),
            _ => answer.accepted().with_context(|| server.shown().to_owned()),
        }
    }

    /// Checks that the API answers and accepts the token.
    async fn probe_api(&self) -> Result<String> {
        let server = Server::of(&self.endpoint)?;
        let version: Version = self
            .send_as_administrator(
                &server,
                server.client().get(server.below(&["api", "v4", "version"])),
            )
            .await?
            .json()?;
        Ok(format!(
            "GitLab {}; whether the token's user is an administrator shows when it is used",
            version.version
        ))
    }
}

impl System for Broadcast {
    fn name(&self) -> &'static str {
        "broadcast"
    }

    fn secrets(&self) -> Vec<Secret<'_>> {
        vec![(CREDENTIAL, &self.token)]
    }

    fn probe(&self) -> LocalBoxFuture<'_, Result<String>> {
        self.probe_api().boxed_local()
    }
}

impl Silence for Broadcast {
    fn begin<'a>(
        &'a self,
        span: &'a Span,
        id: Option<&'a str>,
    ) -> LocalBoxFuture<'a, Result<Option<String>>> {
        self.create_or_extend(span, id).boxed_local()
    }

    fn end<'a>(&'a self, id: Option<&'a str>) -> LocalBoxFuture<'a, Result<()>> {
        self.delete(id).boxed_local()
    }

    /// No: the message must not outlast the downtime.
    fn has_grace(&self) -> bool {
        false
    }
}

/// Replaces the placeholders of a message.
fn fill(text: &str, span: &Span) -> String {
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

/// The time of day in `zone`.
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
            assert_eq!(fill("{downtime}", &Span { from, until: from, downtime }), expected);
        }
    }
}
