//! Alertmanager: a silence by its API v2.

use anyhow::{Context, Result, ensure};
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use reqwest::RequestBuilder;
use reqwest::header::AUTHORIZATION;
use serde::Deserialize;
use serde_json::json;

use crate::config::host;
use crate::config::monitoring::{Alertmanager, Matcher, credential};
use crate::host::secret;

use super::http::{Server, secret_header};
use super::{Silence, Span, accepted};

/// A silence of the configured labels.
pub(super) struct Silencer<'a>(pub(super) &'a Alertmanager);

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

impl Silencer<'_> {
    /// Who a silence is said to be made by: by it ours are found again.
    fn creator() -> String {
        format!("gitlab-backup on {}", host::name())
    }

    fn signed(&self, request: RequestBuilder) -> Result<RequestBuilder> {
        let Some(source) = &self.0.secret else { return Ok(request) };
        let secret = secret::read(source, credential::ALERTMANAGER)?;
        match &self.0.username {
            Some(username) => Ok(request.basic_auth(username, Some(secret))),
            None => Ok(request.header(AUTHORIZATION, secret_header(&format!("Bearer {secret}"))?)),
        }
    }

    async fn ask(&self, server: &Server, request: RequestBuilder) -> Result<super::http::Answer> {
        let request = self.signed(request)?;
        let answer = server.ask(request).await?;
        accepted(&answer).with_context(|| server.shown().to_owned())?;
        Ok(answer)
    }

    /// Our silences of these labels that are not over.
    async fn ours(&self, server: &Server) -> Result<Vec<String>> {
        let request = server.client().get(server.below(&["api", "v2", "silences"]));
        let all: Vec<Existing> = self.ask(server, request).await?.json()?;
        let same = |matchers: &[Matcher]| {
            matchers.len() == self.0.matchers.len()
                && self.0.matchers.iter().all(|matcher| matchers.contains(matcher))
        };
        let ours = all.into_iter().filter(|silence| {
            silence.status.state != "expired"
                && silence.created_by == Self::creator()
                && same(&silence.matchers)
        });
        Ok(ours.map(|silence| silence.id).collect())
    }

    async fn create_or_extend(&self, span: &Span) -> Result<Option<String>> {
        let server = Server::new(&self.0.endpoint)?;
        let mut silence = json!({
            "matchers": self.0.matchers,
            "startsAt": span.from.to_string(),
            "endsAt": span.until.to_string(),
            "createdBy": Self::creator(),
            "comment": "GitLab is being backed up",
        });
        if let Some(id) = self.ours(&server).await?.first() {
            silence["id"] = json!(id);
        }
        let request = server.client().post(server.below(&["api", "v2", "silences"])).json(&silence);
        let created: Created = self.ask(&server, request).await?.json()?;
        Ok(Some(created.silence_id))
    }

    async fn expire(&self) -> Result<()> {
        let server = Server::new(&self.0.endpoint)?;
        // All of them: the answer that told of one may have been lost.
        for id in self.ours(&server).await? {
            let request = server.client().delete(server.below(&["api", "v2", "silence", &id]));
            self.ask(&server, request).await?;
        }
        Ok(())
    }

    async fn look(&self) -> Result<String> {
        let server = Server::new(&self.0.endpoint)?;
        let about: About = self
            .ask(&server, server.client().get(server.below(&["api", "v2", "status"])))
            .await?
            .json()?;
        let version = about.version_info.version;
        ensure!(!version.is_empty(), "{} tells no version", server.shown());
        self.ours(&server).await?;
        Ok(format!("Alertmanager {version}, its silences can be read"))
    }
}

impl Silence for Silencer<'_> {
    fn begin<'a>(
        &'a self,
        span: &'a Span,
        _: Option<&'a str>,
    ) -> LocalBoxFuture<'a, Result<Option<String>>> {
        self.create_or_extend(span).boxed_local()
    }

    fn in_effect(&self) -> LocalBoxFuture<'_, Result<bool>> {
        async {
            let server = Server::new(&self.0.endpoint)?;
            Ok(!self.ours(&server).await?.is_empty())
        }
        .boxed_local()
    }

    fn end<'a>(&'a self, _: Option<&'a str>) -> LocalBoxFuture<'a, Result<()>> {
        self.expire().boxed_local()
    }

    fn probe(&self) -> LocalBoxFuture<'_, Result<String>> {
        self.look().boxed_local()
    }
}
