//! Redis: the fork is the snapshot. The window needs nothing but the fork; the file is secured with GitLab up.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures_util::future::try_join_all;
use jiff::Timestamp;
use redis::aio::MultiplexedConnection;
use redis::{Client, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo};
use sd_notify::NotifyState;
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::config::{Config, Redis, RedisAddress};
use crate::paths;
use crate::runs::record::write_json;
use crate::units::render::credential;

use super::secret;

mod rdb;

const PAUSE: Duration = Duration::from_millis(20);

#[derive(Serialize)]
struct Saved {
    instances: Vec<Instance>,
}

#[derive(Serialize)]
struct Instance {
    name: String,
    version: String,
    file: String,
    bytes: u64,
    /// When the server forked.
    forked: Timestamp,
}

/// Asks every instance. Fails with the first that cannot be used, by name.
pub async fn preflight(config: &Config) -> Result<()> {
    for redis in &config.redis {
        let mut server = Server::connect(redis).await.with_context(|| format!("redis '{}'", redis.name))?;
        server.file().await.with_context(|| format!("redis '{}'", redis.name))?;
    }
    Ok(())
}

/// Forks every instance, says that the window may close, and secures each file when it is written.
pub async fn save(config: &Config) -> Result<()> {
    let named = |redis: &Redis| format!("redis '{}'", redis.name);
    let forks = try_join_all(config.redis.iter().map(|redis| async move {
        let mut server = Server::connect(redis).await.with_context(|| named(redis))?;
        let fork = server.fork(redis).await.with_context(|| named(redis))?;
        anyhow::Ok((redis, server, fork))
    }));
    let forks = forks.await?;
    let text = format!("{} instances forked, waiting for their files", forks.len());
    sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(&text)]).context("systemd cannot be told")?;
    let mut instances = Vec::new();
    for (redis, mut server, fork) in forks {
        instances.push(server.secure(redis, fork).await.with_context(|| named(redis))?);
    }
    write_json(&Path::new(paths::STAGING).join("redis/redis.json"), &Saved { instances })
}

/// A snapshot that the server makes, or has made already.
#[derive(Clone, Copy)]
struct Fork {
    /// Seconds since the epoch: not before this.
    after: i64,
    fresh: bool,
}

struct Server {
    connection: MultiplexedConnection,
}

impl Server {
    async fn connect(redis: &Redis) -> Result<Self> {
        // One provider for the process; a second installation is refused and harmless.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let address = match &redis.address {
            RedisAddress::Unix(path) => ConnectionAddr::Unix(path.clone()),
            RedisAddress::Tcp { host, port, tls: false } => ConnectionAddr::Tcp(host.clone(), *port),
            RedisAddress::Tcp { host, port, tls: true } => {
                ConnectionAddr::TcpTls { host: host.clone(), port: *port, insecure: false, tls_params: None }
            }
        };
        let mut settings = RedisConnectionInfo::default();
        if let Some(name) = &redis.username {
            settings = settings.set_username(name);
        }
        if let Some(source) = &redis.password {
            settings = settings.set_password(secret::read(source, &credential::redis(&redis.name))?);
        }
        let client = Client::open(address.clone().into_connection_info()?.set_redis_settings(settings))?;
        let connect = client.get_multiplexed_async_connection();
        let connection = connect.await.with_context(|| format!("cannot connect to {address}"))?;
        let mut server = Self { connection };
        redis::cmd("PING").query_async::<String>(&mut server.connection).await.context("PING is refused")?;
        Ok(server)
    }

    async fn info(&mut self, section: &str) -> Result<Info> {
        let text: String = redis::cmd("INFO").arg(section).query_async(&mut self.connection).await.context("INFO is refused")?;
        Ok(Info(text))
    }

    /// Where the server writes its file.
    async fn file(&mut self) -> Result<PathBuf> {
        let mut get = async |name: &str| -> Result<String> {
            let pair: Vec<String> =
                redis::cmd("CONFIG").arg("GET").arg(name).query_async(&mut self.connection).await.context("CONFIG GET is refused")?;
            pair.into_iter().nth(1).with_context(|| format!("CONFIG GET {name} says nothing"))
        };
        let path = Path::new(&get("dir").await?).join(get("dbfilename").await?);
        let directory = path.parent().unwrap_or(&path);
        ensure!(directory.is_dir(), "{} is not on this host: only a Redis whose file can be read here is supported", directory.display());
        Ok(path)
    }

    /// Returns when the server has forked, or needs no fork.
    async fn fork(&mut self, redis: &Redis) -> Result<Fork> {
        let deadline = Instant::now() + redis.timeout.duration();
        let path = self.file().await?;
        loop {
            let info = self.info("persistence").await?;
            let busy = info.number("rdb_bgsave_in_progress") == 1 || info.number("aof_rewrite_in_progress") == 1;
            if !busy {
                let good = info.get("rdb_last_bgsave_status") == Some("ok") && info.number("rdb_changes_since_last_save") == 0;
                // The window's writers are down: an unchanged database is its file.
                if good && info.number("rdb_last_save_time") > 0 && rdb::created(&path).is_ok() {
                    return Ok(Fork { after: 0, fresh: false });
                }
                let after = Timestamp::now().as_second();
                match redis::cmd("BGSAVE").query_async::<String>(&mut self.connection).await {
                    Ok(_) => return Ok(Fork { after, fresh: true }),
                    Err(error) if error.to_string().contains("in progress") => {}
                    Err(error) => bail!("BGSAVE is refused: {error} (see its log; vm.overcommit_memory, ACL, rename-command, free disk)"),
                }
            }
            ensure!(Instant::now() < deadline, "another save goes on for longer than {}", redis.timeout);
            sleep(PAUSE).await;
        }
    }

    /// Waits for the file and copies it before a later save replaces it.
    async fn secure(&mut self, redis: &Redis, fork: Fork) -> Result<Instance> {
        let deadline = Instant::now() + redis.timeout.duration();
        loop {
            let info = self.info("persistence").await?;
            if !fork.fresh || info.number("rdb_bgsave_in_progress") == 0 {
                let status = info.get("rdb_last_bgsave_status").unwrap_or("unknown");
                ensure!(status == "ok", "its save failed ({status}): see its log; is its disk full?");
                break;
            }
            ensure!(Instant::now() < deadline, "its save takes longer than {}", redis.timeout);
            sleep(PAUSE).await;
        }
        let path = self.file().await?;
        let name = format!("{}.rdb", redis.name);
        let target = Path::new(paths::STAGING).join("redis").join(&name);
        let mut source = File::open(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut copy = File::create(&target).with_context(|| format!("cannot write {}", target.display()))?;
        let bytes = std::io::copy(&mut source, &mut copy).with_context(|| format!("cannot copy {}", path.display()))?;
        copy.sync_all()?;
        let created = rdb::created(&target)?;
        ensure!(created >= fork.after, "{} is older than the window: the server did not replace it", path.display());
        if let Ok(output) = std::process::Command::new("redis-check-rdb").arg(&target).output() {
            ensure!(output.status.success(), "redis-check-rdb: {}", String::from_utf8_lossy(&output.stdout).trim());
        }
        let version = self.info("server").await?.get("redis_version").unwrap_or("unknown").to_owned();
        fs::metadata(&target)?;
        Ok(Instance { name: redis.name.clone(), version, file: name, bytes, forked: Timestamp::from_second(created)? })
    }
}

/// The answer to INFO: `key:value` lines.
struct Info(String);

impl Info {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))
    }

    fn number(&self, key: &str) -> i64 {
        self.get(key).and_then(|value| value.parse().ok()).unwrap_or(0)
    }
}
