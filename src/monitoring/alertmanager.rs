//! `[monitoring.alertmanager]`: a silence in Alertmanager, by its API v2.

use anyhow::{Context, Result, ensure};
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use reqwest::RequestBuilder;
use reqwest::header::AUTHORIZATION;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::host::{self, secret};
use crate::schema::rules::{self, Refusal};
use crate::schema::{Checker, Field, List, Section};
use crate::values::SecretSource;

use super::endpoint::Endpoint;
use super::http::{HttpAnswer, Server, secret_header};
use super::{Monitoring, Secret, Silence, SilenceConfig, Span, System};

/// The credential with the token or the password.
const CREDENTIAL: &str = "alertmanager.secret";

/// `[monitoring.alertmanager]` as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Raw {
    url: Field<String>,
    ca_file: Field<String>,
    proxy: Field<String>,
    matchers: List,
    username: Field<String>,
    password_file: Field<String>,
    password_credential: Field<String>,
    token_file: Field<String>,
    token_credential: Field<String>,
}

/// A silence of the alerts with certain labels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alertmanager {
    /// The URL without `/api/v2`.
    pub endpoint: Endpoint,
    /// The password of `username`, or a bearer token if there is no `username`.
    pub secret: Option<SecretSource>,
    /// For basic authentication.
    pub username: Option<String>,
    /// Alerts that match all of these are silenced.
    pub matchers: Vec<Matcher>,
}

/// `NAME=VALUE`, `NAME!=VALUE`, `NAME=~REGEX` or `NAME!~REGEX`; its JSON is that of the API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Matcher {
    /// The label.
    pub name: String,
    /// The value or the regular expression.
    pub value: String,
    /// `=~` or `!~`.
    pub is_regex: bool,
    /// `=` or `=~`.
    pub is_equal: bool,
}

pub(super) fn check(
    checker: &mut Checker,
    section: &Section,
    raw: Raw,
    monitoring: &mut Monitoring,
) {
    let endpoint = Endpoint::check(checker, section, ("url", &raw.url), &raw.ca_file, &raw.proxy);
    let matchers = checker.list(section, "matchers", &raw.matchers, |text| matcher(text));
    if raw.matchers.as_ref().is_none_or(|list| list.get_ref().is_empty()) {
        let refusal = Refusal::new(
            "is missing: a silence must not match all alerts",
            "labels, like [\"instance=gitlab.example.com:9100\"]",
        );
        checker.refuse(&section.field("matchers", raw.matchers.as_ref()), refusal);
    }
    let (username, secret) = check_login(checker, section, &raw);
    let matchers = matchers.unwrap_or_default().into_iter().map(|(_, matcher)| matcher).collect();
    let silence = Alertmanager { endpoint, secret, username, matchers };
    monitoring.silences.push(SilenceConfig::Alertmanager(silence));
}

/// Username and password, or a token, or nothing.
fn check_login(
    checker: &mut Checker,
    section: &Section,
    raw: &Raw,
) -> (Option<String>, Option<SecretSource>) {
    let password = checker.secret(section, &raw.password_file, &raw.password_credential);
    let token = checker.named_secret(section, "token", &raw.token_file, &raw.token_credential);
    let username =
        checker.value(section, "username", raw.username.as_ref(), |name| rules::one_line(name));
    if let (Some(field), true) =
        (raw.token_file.as_ref().or(raw.token_credential.as_ref()), raw.username.is_some())
    {
        let refusal = Refusal::new(
            "contradicts username: a request can have only one of them",
            "a token, or username and password",
        );
        checker.refuse(&section.field("token-file", Some(field)), refusal);
    }
    let given = raw.password_file.as_ref().or(raw.password_credential.as_ref());
    if given.is_some() != raw.username.is_some() {
        let refusal = Refusal::new(
            "is only half of a login",
            "username and password-file or password-credential",
        );
        let name = if given.is_some() { "password-file" } else { "username" };
        checker.refuse(&section.field(name, given.or(raw.username.as_ref())), refusal);
    }
    (username, password.or(token))
}

/// A label matcher as `amtool` takes it; quotes around the value may be left out.
fn matcher(text: &str) -> Result<Matcher, Refusal> {
    let refuse = || {
        Refusal::new(
            format!("'{text}' is not a matcher"),
            "LABEL=VALUE, LABEL!=VALUE, LABEL=~REGEX or LABEL!~REGEX",
        )
    };
    let text = rules::one_line(text)?;
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').ok_or_else(refuse)?;
    let (name, rest) = text.split_at(end);
    let operators =
        [("=~", true, true), ("!~", true, false), ("!=", false, false), ("=", false, true)];
    let found = operators.into_iter().find_map(|(sign, is_regex, is_equal)| {
        Some((rest.trim_start().strip_prefix(sign)?, is_regex, is_equal))
    });
    let (value, is_regex, is_equal) = found.ok_or_else(refuse)?;
    let value = value.trim();
    let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
    match name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        true => Err(refuse()),
        false => Ok(Matcher { name: name.to_owned(), value: value.to_owned(), is_regex, is_equal }),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Existing {
    id: String,
    created_by: String,
    matchers: Vec<Matcher>,
    status: Status,
}

#[derive(Deserialize)]
struct Status {
    state: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Created {
    #[serde(rename = "silenceID")]
    silence_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct About {
    version_info: VersionInfo,
}

#[derive(Deserialize)]
struct VersionInfo {
    version: String,
}

impl Alertmanager {
    /// The creator of a silence, by which its silences are found again.
    fn creator() -> String {
        format!("gitlab-backup on {}", host::name())
    }

    /// Adds the login to a request.
    fn authenticate(&self, request: RequestBuilder) -> Result<RequestBuilder> {
        let Some(source) = &self.secret else { return Ok(request) };
        let secret = secret::read(source, CREDENTIAL)?;
        match &self.username {
            Some(username) => Ok(request.basic_auth(username, Some(secret))),
            None => Ok(request.header(AUTHORIZATION, secret_header(&format!("Bearer {secret}"))?)),
        }
    }

    /// Sends a request, and fails unless the answer is a success.
    async fn send(&self, server: &Server, request: RequestBuilder) -> Result<HttpAnswer> {
        let request = self.authenticate(request)?;
        let answer = server.send(request).await?;
        answer.accepted().with_context(|| server.shown().to_owned())?;
        Ok(answer)
    }

    /// The ids of the silences that this host has created for these matchers and that have not
    /// expired.
    async fn own_silences(&self, server: &Server) -> Result<Vec<String>> {
        let request = server.client().get(server.below(&["api", "v2", "silences"]));
        let all: Vec<Existing> = self.send(server, request).await?.json()?;
        let same = |matchers: &[Matcher]| {
            matchers.len() == self.matchers.len()
                && self.matchers.iter().all(|matcher| matchers.contains(matcher))
        };
        let own = all.into_iter().filter(|silence| {
            silence.status.state != "expired"
                && silence.created_by == Self::creator()
                && same(&silence.matchers)
        });
        Ok(own.map(|silence| silence.id).collect())
    }

    /// Creates the silence, or extends the one that exists. Returns its id.
    async fn create_or_extend(&self, span: &Span) -> Result<Option<String>> {
        let server = Server::of(&self.endpoint)?;
        let mut silence = json!({
            "matchers": self.matchers,
            "startsAt": span.from.to_string(),
            "endsAt": span.until.to_string(),
            "createdBy": Self::creator(),
            "comment": "GitLab is being backed up",
        });
        if let Some(id) = self.own_silences(&server).await?.first() {
            silence["id"] = json!(id);
        }
        let request = server.client().post(server.below(&["api", "v2", "silences"])).json(&silence);
        let created: Created = self.send(&server, request).await?.json()?;
        Ok(Some(created.silence_id))
    }

    /// Expires the silence.
    async fn expire(&self) -> Result<()> {
        let server = Server::of(&self.endpoint)?;
        // There may be several: if an answer is lost, the id in it is never recorded.
        for id in self.own_silences(&server).await? {
            let request = server.client().delete(server.below(&["api", "v2", "silence", &id]));
            self.send(&server, request).await?;
        }
        Ok(())
    }

    /// Checks that the API answers and silences can be read.
    async fn probe_api(&self) -> Result<String> {
        let server = Server::of(&self.endpoint)?;
        let about: About = self
            .send(&server, server.client().get(server.below(&["api", "v2", "status"])))
            .await?
            .json()?;
        let version = about.version_info.version;
        ensure!(!version.is_empty(), "{} reports no version", server.shown());
        self.own_silences(&server).await?;
        Ok(format!("Alertmanager {version}, its silences can be read"))
    }
}

impl System for Alertmanager {
    fn name(&self) -> &'static str {
        "alertmanager"
    }

    fn secrets(&self) -> Vec<Secret<'_>> {
        self.secret.iter().map(|secret| (CREDENTIAL, secret)).collect()
    }

    fn probe(&self) -> LocalBoxFuture<'_, Result<String>> {
        self.probe_api().boxed_local()
    }
}

impl Silence for Alertmanager {
    fn begin<'a>(
        &'a self,
        span: &'a Span,
        _: Option<&'a str>,
    ) -> LocalBoxFuture<'a, Result<Option<String>>> {
        self.create_or_extend(span).boxed_local()
    }

    fn in_effect(&self) -> LocalBoxFuture<'_, Result<bool>> {
        async {
            let server = Server::of(&self.endpoint)?;
            Ok(!self.own_silences(&server).await?.is_empty())
        }
        .boxed_local()
    }

    fn end<'a>(&'a self, _: Option<&'a str>) -> LocalBoxFuture<'a, Result<()>> {
        self.expire().boxed_local()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matchers_are_those_of_amtool() {
        let parts =
            |text: &str| matcher(text).map(|m| (m.name, m.value, m.is_regex, m.is_equal)).unwrap();
        assert_eq!(
            parts("instance=gitlab:9100"),
            ("instance".into(), "gitlab:9100".into(), false, true)
        );
        assert_eq!(parts("job =~ \"git.*\""), ("job".into(), "git.*".into(), true, true));
        assert_eq!(parts("a!=b"), ("a".into(), "b".into(), false, false));
        assert_eq!(parts("a!~\"\""), ("a".into(), String::new(), true, false));
        for text in ["", "a", "=b", "1a=b", "a b", "a-b=c"] {
            assert!(matcher(text).is_err(), "{text:?}");
        }
    }
}
