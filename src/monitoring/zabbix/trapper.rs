//! The trapper protocol, and `zabbix_sender` where it is to be encrypted.
//!
//! Zabbix documentation, "Header" and "Sender protocol": `ZBXD`, flags, length of the data in 8
//! bytes, the data.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::timeout;

use crate::config::monitoring::{Address, Trapper, TrapperTls, credential};
use crate::host::process::{find, search_path, tail};
use crate::host::secret;

use super::super::retry::Away;

const MAGIC: &[u8; 5] = b"ZBXD\x01";
const TIMEOUT: Duration = Duration::from_secs(10);
/// Far more than any answer has.
const ANSWER_MAX: u64 = 1024 * 1024;
const SENDER: &str = "zabbix_sender";

#[derive(Deserialize)]
struct Reply {
    response: String,
    #[serde(default)]
    info: String,
}

/// Sends each value to every server. One at a time, as the answer does not say which of several was
/// not taken.
pub(super) async fn send(trapper: &Trapper, values: &[(&str, String)]) -> Result<()> {
    let mut errors: Vec<anyhow::Error> = Vec::new();
    for nodes in &trapper.servers {
        for (key, value) in values {
            if let Err(error) = send_one(trapper, nodes, key, value).await {
                let away = error.downcast_ref::<Away>().is_some();
                errors.push(error);
                // Nobody there: the other values would not be heard either.
                if away {
                    break;
                }
            }
        }
    }
    let all_away = errors.iter().all(|error| error.downcast_ref::<Away>().is_some());
    let text = errors.iter().map(|error| format!("{error:#}")).collect::<Vec<_>>().join("; ");
    match errors.is_empty() {
        true => Ok(()),
        false if all_away => Err(Away(text).into()),
        false => bail!("{text}"),
    }
}

/// Whether every server is there, without telling it anything.
pub(super) async fn probe(trapper: &Trapper) -> Result<String> {
    let mut seen = Vec::new();
    for nodes in &trapper.servers {
        let mut last = None;
        for node in nodes {
            let asked = match &trapper.tls {
                Some(_) => {
                    sender()?;
                    connect(node).await.map(drop)
                }
                None => {
                    exchange(node, &json!({"request": "sender data", "data": []})).await.map(drop)
                }
            };
            match asked {
                Ok(()) => {
                    seen.push(format!("{node} answers"));
                    last = None;
                    break;
                }
                Err(error) => last = Some(error),
            }
        }
        if let Some(error) = last {
            return Err(error);
        }
    }
    Ok(format!(
        "{}; whether host '{}' has the items shows when they are sent",
        seen.join(", "),
        trapper.host
    ))
}

/// To the first node of a cluster that answers.
async fn send_one(trapper: &Trapper, nodes: &[Address], key: &str, value: &str) -> Result<()> {
    let mut away = Vec::new();
    for node in nodes {
        let info = match &trapper.tls {
            None => {
                let data = json!({"request": "sender data", "data": [{"host": trapper.host, "key": key, "value": value}]});
                exchange(node, &data).await
            }
            Some(tls) => by_program(tls, node, [&trapper.host, key, value]).await,
        };
        match info {
            Ok(info) => {
                let taken =
                    count(&info, "processed") == Some(1) && count(&info, "failed") == Some(0);
                ensure!(
                    taken,
                    "{node} did not take '{key}' of host '{}': {info} (is there such a trapper item, enabled, and does it allow this host?)",
                    trapper.host
                );
                tracing::debug!(%node, key, value, "sent");
                return Ok(());
            }
            Err(error) if error.downcast_ref::<Away>().is_some() => away.push(format!("{error:#}")),
            Err(error) => return Err(error),
        }
    }
    Err(Away(away.join("; ")).into())
}

/// One request and its answer's `info`. Who breaks off half way has not answered.
async fn exchange(node: &Address, data: &serde_json::Value) -> Result<String> {
    let mut stream = connect(node).await?;
    let talk = async {
        let body = data.to_string();
        let mut request = MAGIC.to_vec();
        request.extend_from_slice(&(body.len() as u64).to_le_bytes());
        request.extend_from_slice(body.as_bytes());
        stream.write_all(&request).await?;
        read_reply(&mut stream).await
    };
    let reply = match timeout(TIMEOUT, talk).await {
        Ok(Ok(reply)) => reply,
        Ok(Err(error)) => return Err(Away(format!("{node} broke off its answer: {error}")).into()),
        Err(_) => return Err(Away(format!("{node} did not answer within {TIMEOUT:?}")).into()),
    };
    let reply: Reply = serde_json::from_slice(&reply)
        .with_context(|| format!("{node} answers, but not as a Zabbix server does"))?;
    ensure!(reply.response == "success", "{node} answers '{}': {}", reply.response, reply.info);
    Ok(reply.info)
}

async fn connect(node: &Address) -> Result<TcpStream> {
    match timeout(TIMEOUT, TcpStream::connect((node.host.as_str(), node.port))).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(Away(format!("cannot connect to {node}: {error}")).into()),
        Err(_) => Err(Away(format!("cannot connect to {node} within {TIMEOUT:?}")).into()),
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

/// The number behind `name` in `processed: 1; failed: 0; total: 1; seconds spent: 0.000041`.
fn count(info: &str, name: &str) -> Option<u64> {
    info.split(';')
        .find_map(|part| part.trim().strip_prefix(name)?.strip_prefix(": ")?.parse().ok())
}

fn sender() -> Result<PathBuf> {
    find(SENDER, search_path())
        .with_context(|| format!("an encrypted trapper needs {SENDER}, and it is not installed"))
}

/// `zabbix_sender` knows Zabbix' TLS. The key stays in its file, the value goes through standard
/// input; returns what the server said.
async fn by_program(
    tls: &TrapperTls,
    node: &Address,
    [host, key, value]: [&str; 3],
) -> Result<String> {
    let mut command = Command::new(sender()?);
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
            command.arg(secret::file(key, credential::ZABBIX_KEY)?);
        }
        TrapperTls::Certificate { ca_file, certificate_file, key } => {
            command
                .args(["--tls-connect", "cert", "--tls-ca-file"])
                .arg(ca_file)
                .arg("--tls-cert-file")
                .arg(certificate_file);
            command.arg("--tls-key-file").arg(secret::file(key, credential::ZABBIX_KEY)?);
        }
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let talk = async {
        let mut child = command.spawn()?;
        if let Some(mut input) = child.stdin.take() {
            let line = [host, key, value].map(quoted).join(" ");
            input.write_all(format!("{line}\n").as_bytes()).await?;
        }
        child.wait_with_output().await
    };
    let output = match timeout(TIMEOUT * 2, talk).await {
        Ok(output) => output.with_context(|| format!("cannot run {SENDER}"))?,
        Err(_) => {
            return Err(Away(format!(
                "{SENDER} got no answer from {node} within {:?}",
                TIMEOUT * 2
            ))
            .into());
        }
    };
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    match said
        .find("processed: ")
        .map(|at| said[at..].split(['"', '\n']).next().unwrap_or_default())
    {
        Some(info) => Ok(info.to_owned()),
        None => Err(Away(format!("{SENDER} to {node}: {}", tail(said.as_bytes()))).into()),
    }
}

/// As `zabbix_sender` reads its input.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_from_the_server_s_own_words() {
        let info = "processed: 1; failed: 0; total: 1; seconds spent: 0.000041";
        assert_eq!((count(info, "processed"), count(info, "failed")), (Some(1), Some(0)));
        assert_eq!(count("", "processed"), None);
        assert_eq!(quoted("a \"b\" \\"), r#""a \"b\" \\""#);
    }

    #[tokio::test]
    async fn half_an_answer_is_none() {
        let whole = b"ZBXD\x01\x02\0\0\0\0\0\0\0{}";
        assert_eq!(read_reply(&mut &whole[..]).await.unwrap(), b"{}");
        for length in 0..whole.len() {
            assert!(read_reply(&mut &whole[..length]).await.is_err(), "{length}");
        }
        assert!(read_reply(&mut &b"HTTP/1.1 400 Bad"[..]).await.is_err());
        assert!(read_reply(&mut &b"ZBXD\x01\xff\xff\xff\xff\xff\xff\xff\xff"[..]).await.is_err());
    }
}
