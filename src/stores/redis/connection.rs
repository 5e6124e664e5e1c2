//! A connection to one Redis instance, and the answer to its `INFO` command.

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
use crate::host::clock::Clock;
use crate::host::{secret, socket, tls};
use crate::units::render::credential;

use super::bounded::{Allowance, Bounded};
use super::process::{self, ServerProcess, find_listener};

/// How long an instance may take to answer a command.
const ANSWER: Duration = Duration::from_secs(30);

/// An authenticated connection to one instance.
pub struct Connection<'a> {
    /// The instance's table of the configuration, `[[redis]]`.
    pub redis: &'a Redis,
    /// The password, if the server requires one.
    pub password: Option<String>,
    connection: MultiplexedConnection,
    /// The process at the other end of a Unix socket.
    process: Option<ServerProcess>,
    /// The Unix socket's file, opened by its path (`O_PATH`).
    socket: Option<OwnedFd>,
    allowance: Allowance,
}

impl<'a> Connection<'a> {
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
        let allowance = Allowance::new();
        let opened = timeout(ANSWER, open(&redis.address, settings, config, &allowance))
            .await
            .context("it does not answer")
            .flatten();
        let (connection, peer) = opened.with_context(|| {
            format!(
                "cannot connect to {}: check that it runs, and the user and password",
                describe_address(&redis.address)
            )
        })?;
        let (process, socket) = peer.unzip();
        Ok(Self { redis, password, connection, process, socket, allowance })
    }

    /// The process at the other end of this connection. The path of a Unix socket is not looked up
    /// again: it may lead to another server by now.
    ///
    /// # Errors
    /// If the server is on another host, or its process cannot be found.
    pub fn process(&self) -> Result<ServerProcess> {
        match self.process {
            Some(process) => Ok(process),
            None => find_listener(&self.redis.address),
        }
    }

    /// A path by which a child process can connect to this server's Unix socket, even if its own
    /// path leads elsewhere by now. Valid while the descriptor is open.
    pub fn share_socket(&self) -> Result<Option<(OwnedFd, PathBuf)>> {
        let shared = self.socket.as_ref().map(socket::handed_on).transpose();
        shared.context("cannot share the socket with redis-cli")
    }

    /// Whether the server has the command; `None` if the user may not ask.
    pub async fn has_command(&self, command: &str) -> Option<bool> {
        let mut question = ::redis::cmd("COMMAND");
        question.arg("INFO").arg(command);
        self.allowance.renew();
        let answer: Vec<Value> = question.query_async(&mut self.connection.clone()).await.ok()?;
        answer.first().map(|found| *found != Value::Nil)
    }

    /// Runs a command whose answer is a string.
    pub async fn query_text(&self, words: &[&str]) -> Result<String, RedisError> {
        let mut command = ::redis::Cmd::new();
        for word in words {
            command.arg(*word);
        }
        self.allowance.renew();
        command.query_async(&mut self.connection.clone()).await
    }

    /// Runs `INFO`.
    pub async fn info(&self) -> Result<Info> {
        let answer = self.query_text(&["INFO"]).await;
        Ok(Info::parse(&answer.context("INFO failed: the user needs +info in its ACL")?))
    }

    /// The value of a setting, by `CONFIG GET`; `None` if the user may not ask.
    pub async fn setting(&self, name: &str) -> Option<String> {
        let mut command = ::redis::cmd("CONFIG");
        command.arg("GET").arg(name);
        self.allowance.renew();
        let answer: HashMap<String, String> =
            command.query_async(&mut self.connection.clone()).await.ok()?;
        answer.into_iter().find_map(|(key, value)| (key == name).then_some(value))
    }

    /// The time by the server's clock, which its files are stamped with, in seconds since 1970; the
    /// time of this `host` if the user may not ask.
    pub async fn time(&self, host: &dyn Clock) -> i64 {
        self.allowance.renew();
        let answer: Result<(i64, i64), _> =
            ::redis::cmd("TIME").query_async(&mut self.connection.clone()).await;
        answer.map_or_else(|_| host.now().as_second(), |(seconds, _)| seconds)
    }

    /// Whether the address is on this host, so that the server's files may be, too.
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

/// Connects and authenticates. On the way to a Unix socket, links of other accounts are not
/// followed. Returns the process and the file of a Unix socket as well.
async fn open(
    address: &RedisAddress,
    settings: RedisConnectionInfo,
    config: AsyncConnectionConfig,
    allowance: &Allowance,
) -> Result<(MultiplexedConnection, Option<(ServerProcess, OwnedFd)>)> {
    let (stream, peer): (Box<dyn Stream>, _) = match address {
        RedisAddress::Unix(path) => {
            let (stream, socket) = socket::connect_to_named(path, ANSWER).await?;
            let process = process::peer(&stream)?;
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
        Bounded::new(stream, allowance.clone()),
        config,
    )
    .await?;
    tokio::spawn(driver);
    Ok((connection, peer))
}

/// A Unix socket or a TCP connection.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// The address in words, for messages.
pub fn describe_address(address: &RedisAddress) -> String {
    match address {
        RedisAddress::Unix(path) => path.display().to_string(),
        RedisAddress::Tcp { host, port, tls } => {
            format!("{host} port {port}{}", if *tls { " (TLS)" } else { "" })
        }
    }
}

/// The fields of the answer to `INFO`.
pub struct Info(HashMap<String, String>);

impl Info {
    fn parse(text: &str) -> Self {
        let pairs = text.lines().filter_map(|line| line.trim_end().split_once(':'));
        Self(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
    }

    /// The numeric field `key`. A missing field is an error, because a save cannot be followed
    /// without it.
    pub fn number(&self, key: &str) -> Result<i64> {
        let value = self.0.get(key).with_context(|| format!("INFO has no {key}"))?;
        value.parse().with_context(|| format!("INFO says {key}:{value}"))
    }

    /// The version of the server, Redis or Valkey.
    pub fn version(&self) -> String {
        ["valkey_version", "redis_version"]
            .iter()
            .find_map(|key| self.0.get(*key))
            .cloned()
            .unwrap_or_default()
    }

    /// The number of keys in all databases, from fields such as `db0:keys=5,expires=2,avg_ttl=0`.
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

    /// The address of its master, if it is a replica.
    pub fn master(&self) -> Option<String> {
        let field = |key: &str| self.0.get(key).map_or("?", String::as_str);
        (field("role") == "slave")
            .then(|| format!("{} port {}", field("master_host"), field("master_port")))
    }

    /// Fails if the data of the server is incomplete or old: it is loading, or it is a replica that
    /// does not follow its master.
    pub fn ensure_current(&self) -> Result<()> {
        let says = |key: &str, value: &str| self.0.get(key).is_some_and(|said| said == value);
        if self.0.get("loading").is_some_and(|value| value != "0") {
            bail!("it is still loading its data: wait until it has finished (INFO, loading)");
        }
        if let Some(master) = self
            .master()
            .filter(|_| !says("master_link_status", "up") || says("master_sync_in_progress", "1"))
        {
            bail!(
                "it is a replica of {master} that does not follow it (INFO, master_link_status), \
                 so its data are old: repair the replication, or \
                 name the master in [[redis]] url"
            );
        }
        Ok(())
    }

    /// Whether the server loads its data or has a child process at work. It would refuse a save.
    pub fn is_busy(&self) -> bool {
        ["loading", "rdb_bgsave_in_progress", "aof_rewrite_in_progress"]
            .iter()
            .any(|key| self.0.get(*key).is_some_and(|value| value != "0"))
    }

    /// Whether a save is in progress.
    pub fn is_saving(&self) -> bool {
        self.0.get("rdb_bgsave_in_progress").is_some_and(|value| value != "0")
    }

    /// Fails if the last save failed.
    pub fn ensure_last_save_succeeded(&self) -> Result<()> {
        match self.0.get("rdb_last_bgsave_status").map(String::as_str) {
            Some("ok") => Ok(()),
            status => bail!(
                "its last save failed (rdb_last_bgsave_status:{}): its own log says why; \
                 often the disk is full or vm.overcommit_memory is not 1",
                status.unwrap_or("none")
            ),
        }
    }

    /// If the server's file holds exactly the data that is in memory: the earliest and the latest
    /// time at which the save of that file began. Only a save since the server's start counts,
    /// because a server with an AOF starts from data that may be newer than the file.
    pub fn unchanged_since_save(&self) -> Option<(i64, i64)> {
        let number = |key: &str| self.number(key).ok();
        let spent = number("rdb_last_bgsave_time_sec")?;
        let unchanged = number("rdb_changes_since_last_save")? == 0
            && number("aof_enabled")? == 0
            && spent >= 0
            && !self.is_busy()
            && self.ensure_last_save_succeeded().is_ok();
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
        assert!(Info::parse(replica).ensure_current().is_ok());
        for (from, to, word) in [
            ("status:up", "status:down", "10.0.0.1"),
            ("progress:0", "progress:1", "10.0.0.1"),
            ("loading:0", "loading:1", "loading"),
        ] {
            let error = Info::parse(&replica.replace(from, to)).ensure_current().expect_err(to);
            assert!(error.to_string().contains(word), "{error}");
        }
        let master = Info::parse("role:master\r\nloading:0\r\n");
        assert!(master.ensure_current().is_ok() && master.master().is_none());
    }

    #[test]
    fn an_unchanged_instance_needs_no_save() {
        assert_eq!(Info::parse(IDLE).unchanged_since_save(), Some((995, 1000)));
        for (from, to) in [
            ("since_last_save:0", "since_last_save:1"),
            ("aof_enabled:0", "aof_enabled:1"),
            ("status:ok", "status:err"),
            ("time_sec:3", "time_sec:-1"),
            ("in_progress:0", "in_progress:1"),
        ] {
            assert_eq!(Info::parse(&IDLE.replace(from, to)).unchanged_since_save(), None, "{to}");
        }
    }
}
