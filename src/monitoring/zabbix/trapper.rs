//! The trapper protocol, and `zabbix_sender` for encrypted connections.
//!
//! Zabbix documentation, "Header" and "Sender protocol": `ZBXD`, flags, the length of the data in 8
//! bytes, the data.

use std::fmt;
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::timeout;

use crate::host::process::{find, search_path, tail};
use crate::host::secret;
use crate::schema::rules::Refusal;
use crate::values::SecretSource;

use super::super::Secret;
use super::super::retry::Unreachable;

/// The credential with the pre-shared or private key.
const CREDENTIAL: &str = "zabbix.key";
const PORT: u16 = 10051;
const MAGIC: &[u8; 5] = b"ZBXD\x01";
const TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes; no answer is nearly as long.
const ANSWER_MAX: u64 = 1024 * 1024;
const SENDER: &str = "zabbix_sender";

/// A host in Zabbix with trapper items, and the servers that take their values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trapper {
    /// Each value goes to every server. A server is the list of its cluster's nodes, of which the
    /// first that answers takes the value.
    pub servers: Vec<Vec<Address>>,
    /// The name of the host in Zabbix.
    pub host: String,
    /// For encrypted connections, by `zabbix_sender`.
    pub tls: Option<TrapperTls>,
}

/// The encryption of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TrapperTls {
    /// A pre-shared key.
    Psk {
        /// The name of the key, which is not a secret.
        identity: String,
        /// The key.
        key: SecretSource,
    },
    /// A certificate.
    Certificate {
        /// The certificate of the authority that signed the server's certificate.
        ca_file: PathBuf,
        /// The client's certificate.
        certificate_file: PathBuf,
        /// The key of the client's certificate.
        key: SecretSource,
    },
}

/// `HOST[:PORT]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// Name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

#[derive(Deserialize)]
struct TrapperReply {
    response: String,
    #[serde(default)]
    info: String,
}

impl Trapper {
    /// The key, if connections are encrypted.
    pub(super) fn secrets(&self) -> Vec<Secret<'_>> {
        match &self.tls {
            Some(TrapperTls::Psk { key, .. } | TrapperTls::Certificate { key, .. }) => {
                vec![(CREDENTIAL, key)]
            }
            None => Vec::new(),
        }
    }

    /// Sends each value to every server, one value at a time: the answer to several would not name
    /// those that were rejected.
    pub(super) async fn send(&self, values: &[(&str, String)]) -> Result<()> {
        let mut errors: Vec<anyhow::Error> = Vec::new();
        for nodes in &self.servers {
            for (key, value) in values {
                if let Err(error) = self.send_one(nodes, key, value).await {
                    let unreachable = error.downcast_ref::<Unreachable>().is_some();
                    errors.push(error);
                    if unreachable {
                        break;
                    }
                }
            }
        }
        let all_unreachable =
            errors.iter().all(|error| error.downcast_ref::<Unreachable>().is_some());
        let text = errors.iter().map(|error| format!("{error:#}")).collect::<Vec<_>>().join("; ");
        match errors.is_empty() {
            true => Ok(()),
            false if all_unreachable => Err(Unreachable(text).into()),
            false => bail!("{text}"),
        }
    }

    /// Checks that every server answers, without sending a value.
    pub(super) async fn probe(&self) -> Result<String> {
        let mut answers = Vec::new();
        for nodes in &self.servers {
            answers.push(format!("{} answers", self.probe_server(nodes).await?));
        }
        Ok(format!(
            "{}; whether host '{}' has the items shows when they are sent",
            answers.join(", "),
            self.host
        ))
    }

    /// Finds the first node of a server that answers.
    async fn probe_server<'a>(&self, nodes: &'a [Address]) -> Result<&'a Address> {
        let mut failed = Err(anyhow!("the server has no nodes"));
        for node in nodes {
            match self.probe_node(node).await {
                Ok(()) => return Ok(node),
                Err(error) => failed = Err(error),
            }
        }
        failed
    }

    async fn probe_node(&self, node: &Address) -> Result<()> {
        if self.tls.is_some() {
            find_sender()?;
            return connect(node).await.map(drop);
        }
        exchange(node, &json!({"request": "sender data", "data": []})).await.map(drop)
    }

    /// Sends a value to the first node of a cluster that answers.
    async fn send_one(&self, nodes: &[Address], key: &str, value: &str) -> Result<()> {
        let mut unreachable = Vec::new();
        for node in nodes {
            let info = match &self.tls {
                None => {
                    let data = json!({
                        "request": "sender data",
                        "data": [{"host": self.host, "key": key, "value": value}],
                    });
                    exchange(node, &data).await
                }
                Some(tls) => run_sender(tls, node, [&self.host, key, value]).await,
            };
            match info {
                Ok(info) => {
                    let accepted =
                        count(&info, "processed") == Some(1) && count(&info, "failed") == Some(0);
                    ensure!(
                        accepted,
                        "{node} did not take '{key}' of host '{}': {info} (is there such a \
                         trapper item, enabled, and does it allow this host?)",
                        self.host
                    );
                    tracing::debug!(%node, key, value, "sent");
                    return Ok(());
                }
                Err(error) if error.downcast_ref::<Unreachable>().is_some() => {
                    unreachable.push(format!("{error:#}"))
                }
                Err(error) => return Err(error),
            }
        }
        Err(Unreachable(unreachable.join("; ")).into())
    }
}

/// The nodes of a server, separated by `;` as in `ServerActive=` of Zabbix' agent.
pub(super) fn parse_server(text: &str) -> Result<Vec<Address>, Refusal> {
    text.split(';').map(|node| parse_address(node.trim())).collect()
}

fn parse_address(text: &str) -> Result<Address, Refusal> {
    let refuse = || {
        Refusal::new(
            format!("'{text}' is not an address"),
            "HOST, HOST:PORT or [IPv6]:PORT; with ';' between the nodes of a cluster",
        )
    };
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']').ok_or_else(refuse)?;
            host.parse::<Ipv6Addr>().map_err(|_| refuse())?;
            (
                host,
                if after.is_empty() {
                    None
                } else {
                    Some(after.strip_prefix(':').ok_or_else(refuse)?)
                },
            )
        }
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let named = !host.is_empty()
        && host.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c))
        && !host.starts_with('-');
    let port = match port {
        None => PORT,
        Some(port) => port.parse().ok().filter(|port| *port > 0).ok_or_else(refuse)?,
    };
    if named || host.contains(':') {
        Ok(Address { host: host.to_owned(), port })
    } else {
        Err(refuse())
    }
}

/// Sends one request and returns the `info` of the answer. A server whose answer is incomplete
/// counts as unreachable.
async fn exchange(node: &Address, data: &serde_json::Value) -> Result<String> {
    let mut stream = connect(node).await?;
    let exchange = async {
        let body = data.to_string();
        let mut request = MAGIC.to_vec();
        request.extend_from_slice(&(body.len() as u64).to_le_bytes());
        request.extend_from_slice(body.as_bytes());
        stream.write_all(&request).await?;
        read_reply(&mut stream).await
    };
    let reply = match timeout(TIMEOUT, exchange).await {
        Ok(Ok(reply)) => reply,
        Ok(Err(error)) => {
            return Err(Unreachable(format!("{node} broke off its answer: {error}")).into());
        }
        Err(_) => {
            return Err(Unreachable(format!("{node} did not answer within {TIMEOUT:?}")).into());
        }
    };
    let reply: TrapperReply = serde_json::from_slice(&reply)
        .with_context(|| format!("{node} answers, but not as a Zabbix server does"))?;
    ensure!(reply.response == "success", "{node} answers '{}': {}", reply.response, reply.info);
    Ok(reply.info)
}

async fn connect(node: &Address) -> Result<TcpStream> {
    match timeout(TIMEOUT, TcpStream::connect((node.host.as_str(), node.port))).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(Unreachable(format!("cannot connect to {node}: {error}")).into()),
        Err(_) => Err(Unreachable(format!("cannot connect to {node} within {TIMEOUT:?}")).into()),
    }
}

async fn read_reply(stream: &mut (impl AsyncReadExt + Unpin)) -> std::io::Result<Vec<u8>> {
    let invalid =
        |what: &str| std::io::Error::new(std::io::ErrorKind::InvalidData, what.to_owned());
    let mut header = [0; 13];
    stream.read_exact(&mut header).await?;
    let (magic, length) = header.split_at(5);
    if magic != MAGIC {
        return Err(invalid("this is not a Zabbix server's trapper port"));
    }
    let length = u64::from_le_bytes(length.try_into().unwrap_or([0xff; 8]));
    if length > ANSWER_MAX {
        return Err(invalid("an answer without end"));
    }
    let mut reply = vec![0; usize::try_from(length).unwrap_or(0)];
    stream.read_exact(&mut reply).await?;
    Ok(reply)
}

/// The number after `name` in `processed: 1; failed: 0; total: 1; seconds spent: 0.000041`.
fn count(info: &str, name: &str) -> Option<u64> {
    info.split(';')
        .find_map(|part| part.trim().strip_prefix(name)?.strip_prefix(": ")?.parse().ok())
}

fn find_sender() -> Result<PathBuf> {
    find(SENDER, search_path())
        .with_context(|| format!("an encrypted trapper needs {SENDER}, and it is not installed"))
}

/// Sends a value by `zabbix_sender`, which implements Zabbix' TLS, and returns the `info` of the
/// answer. The key is passed as a file and the value on standard input.
async fn run_sender(
    tls: &TrapperTls,
    node: &Address,
    [host, key, value]: [&str; 3],
) -> Result<String> {
    let mut command = Command::new(find_sender()?);
    command.args(["-vv", "-z", &node.host, "-p", &node.port.to_string(), "-i", "-"]);
    match tls {
        TrapperTls::Psk { identity, key } => {
            command.args([
                "--tls-connect",
                "psk",
                "--tls-psk-identity",
                identity,
                "--tls-psk-file",
            ]);
            command.arg(secret::file(key, CREDENTIAL)?);
        }
        TrapperTls::Certificate { ca_file, certificate_file, key } => {
            command
                .args(["--tls-connect", "cert", "--tls-ca-file"])
                .arg(ca_file)
                .arg("--tls-cert-file")
                .arg(certificate_file);
            command.arg("--tls-key-file").arg(secret::file(key, CREDENTIAL)?);
        }
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let exchange = async {
        let mut child = command.spawn()?;
        if let Some(mut input) = child.stdin.take() {
            let line = [host, key, value].map(quote).join(" ");
            input.write_all(format!("{line}\n").as_bytes()).await?;
        }
        child.wait_with_output().await
    };
    let output = match timeout(TIMEOUT * 2, exchange).await {
        Ok(output) => output.with_context(|| format!("cannot run {SENDER}"))?,
        Err(_) => {
            return Err(Unreachable(format!(
                "{SENDER} got no answer from {node} within {:?}",
                TIMEOUT * 2
            ))
            .into());
        }
    };
    let output = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    match output
        .find("processed: ")
        .map(|at| output[at..].split(['"', '\n']).next().unwrap_or_default())
    {
        Some(info) => Ok(info.to_owned()),
        None => Err(Unreachable(format!("{SENDER} to {node}: {}", tail(output.as_bytes()))).into()),
    }
}

/// Quotes a word of the input of `zabbix_sender`.
fn quote(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_zabbix_port_unless_they_say_otherwise() {
        let nodes = |text: &str| {
            parse_server(text)
                .map(|nodes| nodes.iter().map(ToString::to_string).collect::<Vec<_>>())
                .unwrap_or_default()
        };
        assert_eq!(nodes("zabbix.example.com"), ["zabbix.example.com:10051"]);
        assert_eq!(nodes("a:1; b;[::1]:7"), ["a:1", "b:10051", "[::1]:7"]);
        for text in ["", "a;", "a:0", "a:x", "a:65536", "::1", "[x]:1", "a b", "-o"] {
            assert!(parse_server(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn counts_are_read_from_the_info_of_an_answer() {
        let info = "processed: 1; failed: 0; total: 1; seconds spent: 0.000041";
        assert_eq!((count(info, "processed"), count(info, "failed")), (Some(1), Some(0)));
        assert_eq!(count("", "processed"), None);
        assert_eq!(quote("a \"b\" \\"), r#""a \"b\" \\""#);
    }

    #[tokio::test]
    async fn an_incomplete_answer_is_an_error() {
        let whole = b"ZBXD\x01\x02\0\0\0\0\0\0\0{}";
        assert_eq!(read_reply(&mut &whole[..]).await.unwrap(), b"{}");
        for length in 0..whole.len() {
            assert!(read_reply(&mut &whole[..length]).await.is_err(), "{length}");
        }
        assert!(read_reply(&mut &b"HTTP/1.1 400 Bad"[..]).await.is_err());
        assert!(read_reply(&mut &b"ZBXD\x01\xff\xff\xff\xff\xff\xff\xff\xff"[..]).await.is_err());
    }
}
