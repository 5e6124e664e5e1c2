//! JSON-RPC with Zabbix 6.0 to 7.x.

use anyhow::{Context, Result, bail, ensure};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::config::monitoring::{ZabbixApi, credential};
use crate::host::secret;

use super::super::http::{Server, secret_header};

/// From this version on the token goes into a header. Before, it is ignored there without a word;
/// from 7.2 on it is refused in the body.
const BEARER_SINCE: (u32, u32) = (6, 4);
/// The first version with API tokens, of those that are still alive.
const OLDEST: (u32, u32) = (6, 0);

/// A server that has told its version.
pub(super) struct Api {
    server: Server,
    token: String,
    version: String,
    bearer: bool,
}

#[derive(Deserialize)]
struct Reply {
    result: Option<Value>,
    error: Option<Refusal>,
}

#[derive(Deserialize)]
struct Refusal {
    code: i64,
    message: String,
    #[serde(default)]
    data: Value,
}

impl Api {
    /// Asks for the version, which needs no token, and reads the token.
    pub(super) async fn connect(config: &ZabbixApi) -> Result<Self> {
        let token = secret::read(&config.token, credential::ZABBIX_TOKEN)?;
        let mut api = Self {
            server: Server::new(&config.endpoint)?,
            token: String::new(),
            version: String::new(),
            bearer: false,
        };
        let version = api.call("apiinfo.version", json!({})).await?;
        version.as_str().unwrap_or_default().clone_into(&mut api.version);
        let mut numbers = api.version.split('.').map(|number| number.parse::<u32>().ok());
        let (Some(Some(major)), Some(Some(minor))) = (numbers.next(), numbers.next()) else {
            bail!("{} tells '{}' as its version", api.server.shown(), api.version);
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

    /// The version, as it tells it.
    pub(super) fn version(&self) -> &str {
        &self.version
    }

    /// Calls a method. Fails with the server's own words.
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
        let answer = self.server.ask(request.body(body.to_string())).await?;
        let shown = self.server.shown();
        ensure!(
            answer.status.is_success(),
            "{shown} answers {}: is that the URL of Zabbix' api_jsonrpc.php?",
            answer.status
        );
        let reply: Reply = answer.json().with_context(|| {
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

/// What to look at; for the reader, nothing depends on it.
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
