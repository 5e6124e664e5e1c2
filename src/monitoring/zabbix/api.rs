//! JSON-RPC with Zabbix 6.0 to 7.x.

use anyhow::{Context, Result, bail, ensure};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::endpoint::Endpoint;
use super::super::http::{Server, secret_header};

/// The first version that reads the token from a header; older ones silently ignore the header.
/// Zabbix 7.2 and later refuse a token in the body.
const BEARER_SINCE: (u32, u32) = (6, 4);
/// The oldest supported version that has API tokens.
const OLDEST: (u32, u32) = (6, 0);

/// A connection to a server whose version is known.
pub(super) struct Api {
    server: Server,
    token: String,
    version: String,
    bearer: bool,
}

#[derive(Deserialize)]
struct ApiReply {
    result: Option<Value>,
    error: Option<ApiError>,
}

#[derive(Deserialize)]
struct ApiError {
    code: i64,
    message: String,
    #[serde(default)]
    data: Value,
}

impl Api {
    /// Requests the version, without the token. Later calls send the token.
    pub(super) async fn connect(endpoint: &Endpoint, token: String) -> Result<Self> {
        let mut api = Self {
            server: Server::of(endpoint)?,
            token: String::new(),
            version: String::new(),
            bearer: false,
        };
        let version = api.call("apiinfo.version", json!({})).await?;
        version.as_str().unwrap_or_default().clone_into(&mut api.version);
        let mut numbers = api.version.split('.').map(|number| number.parse::<u32>().ok());
        let (Some(Some(major)), Some(Some(minor))) = (numbers.next(), numbers.next()) else {
            bail!("{} reports '{}' as its version", api.server.shown(), api.version);
        };
        ensure!(
            (major, minor) >= OLDEST,
            "Zabbix {} is too old: 6.0 or newer is needed",
            api.version
        );
        api.bearer = (major, minor) >= BEARER_SINCE;
        api.token = token;
        Ok(api)
    }

    /// The version that the server reports.
    pub(super) fn version(&self) -> &str {
        &self.version
    }

    /// Calls a method. The error quotes the server's message.
    pub(super) async fn call(&self, method: &str, params: Value) -> Result<Value> {
        let mut body = json!({"jsonrpc": "2.0", "method": method, "params": params, "id": 1});
        let mut request = self
            .server
            .client()
            .post(self.server.below(&[]))
            .header(CONTENT_TYPE, "application/json-rpc");
        match self.token.is_empty() {
            true => {}
            false if self.bearer => {
                request =
                    request.header(AUTHORIZATION, secret_header(&format!("Bearer {}", self.token))?)
            }
            false => body["auth"] = json!(self.token),
        }
        let answer = self.server.send(request.body(body.to_string())).await?;
        let shown = self.server.shown();
        ensure!(
            answer.status.is_success(),
            "{shown} answers {}: is that the URL of Zabbix' api_jsonrpc.php?",
            answer.status
        );
        let reply: ApiReply = answer.json().with_context(|| {
            format!("{shown} ({method}): is that the URL of Zabbix' api_jsonrpc.php?")
        })?;
        if let Some(error) = reply.error {
            let data = error.data.as_str().map_or_else(|| error.data.to_string(), str::to_owned);
            bail!(
                "Zabbix refuses {method}: {} {data} (code {}{})",
                error.message,
                error.code,
                hint(&data)
            );
        }
        reply.result.with_context(|| {
            format!("{shown}: {method}: an answer with neither a result nor an error")
        })
    }
}

/// The likely reason for an error, for the reader of the message only.
fn hint(data: &str) -> &'static str {
    match data {
        data if data.starts_with("Not authori")
            || data.starts_with("Session terminated")
            || data.starts_with("API token expired") =>
        {
            "; is the token right, enabled and not expired?"
        }
        data if data.starts_with("No permissions") => {
            "; the token's user needs the role of an admin and read-write on the hosts' groups"
        }
        _ => "",
    }
}
