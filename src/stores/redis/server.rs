//! A connection to one instance, and what it says of itself.

use std::collections::HashMap;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo,
    RedisError, Value,
};
use anyhow::{Context, Result, bail};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::config::{Redis, RedisAddress};
use crate::host::{secret, socket, tls};
use crate::units::render::credential;

use super::bounded::{Allowance, Bounded};
use super::process::{Behind, listening, of_peer};

/// How long an instance may take to answer.
const ANSWER: Duration = Duration::from_secs(30);

/// One instance.
pub struct Server<'a> {
    /// `[[redis]]`
    pub redis: &'a Redis,
    /// None where it asks for none.
    pub password: Option<String>,
    connection: MultiplexedConnection,
    /// Who is at the other end, where the kernel tells.
    process: Option<Behind>,
    /// The socket that it was reached by.
    socket: Option<OwnedFd>,
    left: Allowance,
}

impl<'a> Server<'a> {
    /// Connects and authenticates.
    pub async fn connect(redis: &'a Redis) -> Result<Self> {
        tls::use_ring();
        let password = redis
            .password
            .as_ref()
            .map(|source| secret::read(source, &credential::redis(&redis.name)))
            .transpose()?;
        let mut settings = RedisConnectionInfo::default().set_skip_set_lib_name();
        if let Some(username) = &redis.username {
            settings = settings.set_username(username);
        }
        if let Some(password) = &password {
            settings = settings.set_password(password);
        }
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(ANSWER))
            .set_response_timeout(Some(ANSWER));
        let left = Allowance::new();
        let opened = timeout(ANSWER, open(&redis.address, settings, config, &left))
            .await
            .context("it does not answer")
            .flatten();
        let (connection, behind) = opened.with_context(|| {
            format!(
                "cannot connect to {}: check that it runs, and the user and password",
                place(&redis.address)
            )
        })?;
        let (process, socket) = behind.unzip();
        Ok(Self { redis, password, connection, process, socket, left })
    }

    /// The process at the other end of this very connection. What has its name by now may be
    /// another's.
    ///
    /// # Errors
    /// If it is none of this host, or cannot be told.
    pub fn process(&self) -> Result<Behind> {
        match self.process {
            Some(process) => Ok(process),
            None => listening(&self.redis.address),
        }
    }

    /// Where a program of ours reaches the same server while the descriptor is there: by the socket
    /// that was open all the time, and not by its name.
    pub fn handed_on(&self) -> Result<Option<(OwnedFd, PathBuf)>> {
        self.socket.as_ref().map(socket::handed_on).transpose().context("cannot hand the socket on")
    }

    /// Whether the server has a command of this name; none where asking is forbidden.
    pub async fn knows(&self, command: &str) -> Option<bool> {
        let mut question = ::redis::cmd("COMMAND");
        question.arg("INFO").arg(command);
        self.left.renew();
        let answer: Vec<Value> = question.query_async(&mut self.connection.clone()).await.ok()?;
        answer.first().map(|found| *found != Value::Nil)
    }

    /// A command whose answer is a string.
    pub async fn text(&self, words: &[&str]) -> Result<String, RedisError> {
        let mut command = ::redis::Cmd::new();
        for word in words {
            command.arg(*word);
        }
        self.left.renew();
        command.query_async(&mut self.connection.clone()).await
    }

    /// `INFO`.
    pub async fn info(&self) -> Result<Info> {
        let text =
            self.text(&["INFO"]).await.context("INFO failed: the user needs +info in its ACL")?;
        Ok(Info::parse(&text))
    }

    /// A setting; none where asking is forbidden.
    pub async fn setting(&self, name: &str) -> Option<String> {
        let mut command = ::redis::cmd("CONFIG");
        command.arg("GET").arg(name);
        self.left.renew();
        let answer: HashMap<String, String> =
            command.query_async(&mut self.connection.clone()).await.ok()?;
        answer.into_iter().find_map(|(key, value)| (key == name).then_some(value))
    }

    /// Seconds since 1970 by the server's clock, which is the one in its files; by ours where
    /// asking is forbidden.
    pub async fn clock(&self) -> i64 {
        self.left.renew();
        let answer: Result<(i64, i64), _> =
            ::redis::cmd("TIME").query_async(&mut self.connection.clone()).await;
        answer.map_or_else(|_| jiff::Timestamp::now().as_second(), |(seconds, _)| seconds)
    }

    /// Whether its files may be on this machine.
    pub fn is_local(&self) -> bool {
        match &self.redis.address {
            RedisAddress::Unix(_) => true,
            RedisAddress::Tcp { host, .. } => {
                host == "localhost"
                    || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
            }
        }
    }
}

/// Connects and authenticates. By a socket, to the very one that has the name, and to nothing that
/// a link leads to.
async fn open(
    address: &RedisAddress,
    settings: RedisConnectionInfo,
    config: AsyncConnectionConfig,
    left: &Allowance,
) -> Result<(MultiplexedConnection, Option<(Behind, OwnedFd)>)> {
    let (stream, behind): (Box<dyn Stream>, _) = match address {
        RedisAddress::Unix(path) => {
            let (stream, socket) = socket::connect_to_named(path, ANSWER).await?;
            let process = of_peer(&stream)?;
            (Box::new(stream), Some((process, socket)))
        }
        RedisAddress::Tcp { host, port, tls: false } => {
            (Box::new(TcpStream::connect((host.as_str(), *port)).await?), None)
        }
        RedisAddress::Tcp { host, port, tls: true } => {
            let address = ConnectionAddr::TcpTls {
                host: host.clone(),
                port: *port,
                insecure: false,
                tls_params: None,
            };
            let info = address.into_connection_info()?.set_redis_settings(settings);
            let connection =
                Client::open(info)?.get_multiplexed_async_connection_with_config(&config).await?;
            return Ok((connection, None));
        }
    };
    let (connection, driver) = MultiplexedConnection::new_with_config(
        &settings,
        Bounded::new(stream, left.clone()),
        config,
    )
    .await?;
    tokio::spawn(driver);
    Ok((connection, behind))
}

/// What bytes come and go by.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// An address, for messages.
pub fn place(address: &RedisAddress) -> String {
    match address {
        RedisAddress::Unix(path) => path.display().to_string(),
        RedisAddress::Tcp { host, port, tls } => {
            format!("{host} port {port}{}", if *tls { " (TLS)" } else { "" })
        }
    }
}

/// The answer to `INFO`.
pub struct Info(HashMap<String, String>);

impl Info {
    fn parse(text: &str) -> Self {
        let pairs = text.lines().filter_map(|line| line.trim_end().split_once(':'));
        Self(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
    }

    /// A number. Missing fields are an error: without them a save cannot be followed.
    pub fn number(&self, key: &str) -> Result<i64> {
        let value = self.0.get(key).with_context(|| format!("INFO has no {key}"))?;
        value.parse().with_context(|| format!("INFO says {key}:{value}"))
    }

    /// The server's version, of Redis or of what it became.
    pub fn version(&self) -> String {
        ["valkey_version", "redis_version"]
            .iter()
            .find_map(|key| self.0.get(*key))
            .cloned()
            .unwrap_or_default()
    }

    /// The keys of all its databases: from lines such as `db0:keys=5,expires=2,avg_ttl=0`.
    pub fn keys(&self) -> u64 {
        let count = |(name, value): (&String, &String)| {
            let database =
                name.strip_prefix("db").is_some_and(|number| number.parse::<u32>().is_ok());
            let keys =
                value.split(',').find_map(|field| field.strip_prefix("keys=")?.parse::<u64>().ok());
            keys.filter(|_| database)
        };
        self.0.iter().filter_map(count).sum()
    }

    /// Where its data come from, if it is a replica.
    pub fn master(&self) -> Option<String> {
        let field = |key: &str| self.0.get(key).map_or("?", String::as_str);
        (field("role") == "slave")
            .then(|| format!("{} port {}", field("master_host"), field("master_port")))
    }

    /// Fails if it has not, or may not have, what it should hold: it is loading, or a replica that
    /// does not follow its master.
    pub fn current(&self) -> Result<()> {
        let says = |key: &str, value: &str| self.0.get(key).is_some_and(|said| said == value);
        if self.0.get("loading").is_some_and(|value| value != "0") {
            bail!("it is still loading its data: wait until it has (INFO, loading)");
        }
        if let Some(master) = self
            .master()
            .filter(|_| !says("master_link_status", "up") || says("master_sync_in_progress", "1"))
        {
            bail!(
                "it is a replica of {master} that does not follow it (INFO, master_link_status), so its data are old: mend the link, or name the \
                 master in [[redis]] url"
            );
        }
        Ok(())
    }

    /// A child of the server is at work, so that it refuses a save.
    pub fn is_busy(&self) -> bool {
        ["loading", "rdb_bgsave_in_progress", "aof_rewrite_in_progress"]
            .iter()
            .any(|key| self.0.get(*key).is_some_and(|value| value != "0"))
    }

    /// A save is under way.
    pub fn is_saving(&self) -> bool {
        self.0.get("rdb_bgsave_in_progress").is_some_and(|value| value != "0")
    }

    /// An error if the last save failed.
    pub fn last_save(&self) -> Result<()> {
        match self.0.get("rdb_last_bgsave_status").map(String::as_str) {
            Some("ok") => Ok(()),
            status => bail!(
                "its last save failed (rdb_last_bgsave_status:{}): its own log says why; \
                 often the disk is full or vm.overcommit_memory is not 1",
                status.unwrap_or("none")
            ),
        }
    }

    /// When the file that holds exactly what the server holds was begun, at the earliest and at the
    /// latest; none if there may be no such file. After a start the file may be older than what the
    /// server read from its AOF, so only a save since counts.
    pub fn unchanged(&self) -> Option<(i64, i64)> {
        let number = |key: &str| self.number(key).ok();
        let spent = number("rdb_last_bgsave_time_sec")?;
        let unchanged = number("rdb_changes_since_last_save")? == 0
            && number("aof_enabled")? == 0
            && spent >= 0
            && !self.is_busy()
            && self.last_save().is_ok();
        let end = number("rdb_last_save_time")?;
        unchanged.then_some((end - spent - 2, end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: &str = "# Persistence\r\nloading:0\r\naof_enabled:0\r\nrdb_changes_since_last_save:0\r\nrdb_bgsave_in_progress:0\r\n\
        rdb_last_save_time:1000\r\nrdb_last_bgsave_status:ok\r\nrdb_last_bgsave_time_sec:3\r\naof_rewrite_in_progress:0\r\n";

    #[test]
    fn a_replica_counts_while_it_follows_its_master() {
        let replica = "role:slave\r\nmaster_host:10.0.0.1\r\nmaster_port:6379\r\nmaster_link_status:up\r\nmaster_sync_in_progress:0\r\nloading:0\r\n";
        assert_eq!(Info::parse(replica).master().as_deref(), Some("10.0.0.1 port 6379"));
        assert!(Info::parse(replica).current().is_ok());
        for (from, to, word) in [
            ("status:up", "status:down", "10.0.0.1"),
            ("progress:0", "progress:1", "10.0.0.1"),
            ("loading:0", "loading:1", "loading"),
        ] {
            let error = Info::parse(&replica.replace(from, to)).current().expect_err(to);
            assert!(error.to_string().contains(word), "{error}");
        }
        let master = Info::parse("role:master\r\nloading:0\r\n");
        assert!(master.current().is_ok() && master.master().is_none());
    }

    #[test]
    fn an_unchanged_instance_needs_no_save() {
        assert_eq!(Info::parse(IDLE).unchanged(), Some((995, 1000)));
        for (from, to) in [
            ("since_last_save:0", "since_last_save:1"),
            ("aof_enabled:0", "aof_enabled:1"),
            ("status:ok", "status:err"),
            ("time_sec:3", "time_sec:-1"),
            ("in_progress:0", "in_progress:1"),
        ] {
            assert_eq!(Info::parse(&IDLE.replace(from, to)).unchanged(), None, "{to}");
        }
    }
}
