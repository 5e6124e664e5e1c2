//! Saves every instance at once. The window waits for the forks only.

use std::cell::Cell;
use std::fs::File;
use std::io::Seek;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};
use tokio::process::Command;
use tokio::time::{sleep, timeout};

use super::files::Files;
use super::rdb::{self, Format};
use super::remote::{self, Transfer};
use super::server::{Info, Server};
use crate::config::{Config, Redis};
use crate::host::beneath::Directory;
use crate::host::confined::Confinement;
use crate::host::{holes, own, process, user};
use crate::paths;
use crate::runs::record::write_json;
use crate::systemd::notify;

/// How often an instance is asked how far it is.
const POLL: Duration = Duration::from_millis(100);

/// What is in the directory, for the manifest.
#[derive(Serialize, Deserialize)]
pub(super) struct Saves {
    pub instances: Vec<Save>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Save {
    pub name: String,
    pub version: String,
    file: String,
    bytes: u64,
    /// False where the file that was there already held everything.
    saved: bool,
}

/// Saves every instance into the staging area.
pub async fn save(config: &Config) -> Result<()> {
    let staging = Path::new(paths::STAGING).join("redis");
    own::make(&staging)?;
    let pending = Pending(Cell::new(config.redis.len()));
    if config.redis.is_empty() {
        notify::ready("there is no Redis to save");
    } else {
        notify::status(&format!("waiting for {} Redis instances to fork", config.redis.len()));
    }
    let saves = config.redis.iter().map(|redis| async {
        let limit = redis.timeout;
        let saved = timeout(limit.duration(), instance(redis, &staging, &pending)).await;
        saved
            .with_context(|| {
                format!("not done after {limit}: see its own log, or raise its timeout")
            })
            .flatten()
            .with_context(|| format!("cannot save Redis {}", redis.name))
    });
    let instances = try_join_all(saves).await?;
    notify::status(&format!("{} Redis instances are saved", instances.len()));
    write_json(&staging.join("redis.json"), &Saves { instances })
}

/// How many instances have yet to fork.
struct Pending(Cell<usize>);

impl Pending {
    fn forked(&self) {
        self.0.set(self.0.get().saturating_sub(1));
        match self.0.get() {
            0 => notify::ready("every Redis has forked, waiting for the files"),
            left => notify::status(&format!("waiting for {left} Redis instances to fork")),
        }
    }
}

async fn instance(redis: &Redis, staging: &Path, pending: &Pending) -> Result<Save> {
    let server = Server::connect(redis).await?;
    let name = format!("{}.rdb", redis.name);
    let target = staging.join(&name);
    // What another attempt left.
    own::remove(&target)?;
    let info = idle(&server).await?;
    info.current()?;
    let saved = match local_files(&server).await {
        Some(source) => local(&server, &info, &source, &target, pending).await?,
        None => distant(&server, &target, pending).await?,
    };
    verify(redis, &target).await?;
    let bytes =
        target.metadata().with_context(|| format!("cannot read {}", target.display()))?.len();
    Ok(Save { name: redis.name.clone(), version: info.version(), file: name, bytes, saved })
}

/// Where the instance keeps its file, if that is on this machine and it can be read with the
/// instance's own rights.
async fn local_files(server: &Server<'_>) -> Option<Files> {
    match async { Files::of(server).await.and_then(|files| files.open().map(|_| files)) }.await {
        Ok(files) => Some(files),
        Err(error) => {
            tracing::info!("Redis {}: fetched over its protocol: {error:#}", server.redis.name);
            None
        }
    }
}

/// Waits until the instance has no child at work. The caller bounds the time.
async fn idle(server: &Server<'_>) -> Result<Info> {
    loop {
        let info = server.info().await?;
        if !info.is_busy() {
            return Ok(info);
        }
        sleep(POLL).await;
    }
}

/// Through the instance's own file. Whether a new save was needed.
async fn local(
    server: &Server<'_>,
    info: &Info,
    source: &Files,
    target: &Path,
    pending: &Pending,
) -> Result<bool> {
    if let Some((from, to)) = info.unchanged() {
        match open(source, from, to) {
            // Still so once it is open: then the open file is what the server holds.
            Ok(file) if server.info().await?.unchanged() == Some((from, to)) => {
                pending.forked();
                copy(file, target).await?;
                return Ok(false);
            }
            Ok(_) => {}
            Err(error) => tracing::info!("Redis {}: saving anew: {error:#}", server.redis.name),
        }
    }
    let (from, to) = anew(server, || pending.forked()).await?;
    copy(open(source, from, to)?, target).await?;
    Ok(true)
}

/// Has the instance save into its own file; when that was begun, at the earliest and at the latest.
/// Tells when it has forked.
async fn anew(server: &Server<'_>, forked: impl FnOnce()) -> Result<(i64, i64)> {
    let requested = server.clock().await;
    bgsave(server).await?;
    forked();
    let info = loop {
        let info = server.info().await?;
        if !info.is_saving() {
            break info;
        }
        sleep(POLL).await;
    };
    info.last_save()?;
    let end = info.number("rdb_last_save_time")?;
    ensure!(end >= requested - 1, "its save ended without a new file: its own log says why");
    Ok((requested - 1, end))
}

/// Has an instance whose last save failed, and that will have to save in the window, do so while
/// GitLab is up.
///
/// # Errors
/// If that fails, too.
pub(super) async fn tried(redis: &Redis) -> Result<()> {
    let server = Server::connect(redis).await?;
    if server.info().await?.last_save().is_ok() || local_files(&server).await.is_none() {
        return Ok(());
    }
    let limit = redis.timeout;
    let save = async { idle(&server).await.map(drop).and(anew(&server, || ()).await.map(drop)) };
    timeout(limit.duration(), save)
        .await
        .with_context(|| format!("not done after {limit}"))
        .flatten()
}

/// Makes the instance fork.
async fn bgsave(server: &Server<'_>) -> Result<()> {
    loop {
        match server.text(&["BGSAVE"]).await {
            Ok(reply) if reply.contains("started") => return Ok(()),
            Ok(reply) => bail!("BGSAVE was answered {reply:?}"),
            Err(error) => {
                let words = error.to_string();
                let under_way = ["in progress", "child process", "can't BGSAVE", "Background"]
                    .iter()
                    .any(|part| words.contains(part));
                if !under_way {
                    return Err(error).context(
                        "BGSAVE was refused: the user needs +bgsave in its ACL and the command must not be renamed; \
                         if the fork failed, set vm.overcommit_memory=1 (sysctl) or add memory",
                    );
                }
            }
        }
        idle(server).await?;
    }
}

/// Over the replication protocol; always a new save.
async fn distant(server: &Server<'_>, target: &Path, pending: &Pending) -> Result<bool> {
    let requested = server.clock().await;
    let transfer = Transfer::start(server, target).await?;
    pending.forked();
    transfer.finish().await?;
    let end = server.clock().await;
    let mut file =
        own::open(target).with_context(|| format!("cannot read {}", target.display()))?;
    ours(&mut file, requested - 1, end)
        .with_context(|| format!("{} is not the save asked for", target.display()))?;
    file.sync_all().with_context(|| format!("cannot sync {}", target.display()))?;
    Ok(true)
}

/// Opens the file, proven to be of a fork between `from` and `to`. What is opened stays, even if a
/// later save takes its name.
fn open(source: &Files, from: i64, to: i64) -> Result<File> {
    let mut file =
        source.open()?.with_context(|| format!("{} is not there", source.path().display()))?;
    ours(&mut file, from, to)
        .with_context(|| format!("{} is not the file of this save", source.path().display()))?;
    file.rewind()?;
    Ok(file)
}

/// Copies an open file on a thread of its own: the other instances may not have forked yet.
///
/// Not by [`durable`](crate::host::durable): a retry removes an unfinished copy by its name, while
/// a temporary file that a crash left in this directory would be stored with the dumps. Nothing
/// reads the copy before `redis.json`, which is written last, names it.
async fn copy(source: File, target: &Path) -> Result<()> {
    let path = target.to_owned();
    let copy = move || -> std::io::Result<()> {
        let copy = own::create(&path)?;
        // It is the server's to write in: not more than it has on the disk, and not what it still
        // appends.
        holes::copy(&source, &copy, source.metadata()?.len())?;
        copy.sync_all()
    };
    tokio::task::spawn_blocking(copy)
        .await?
        .with_context(|| format!("cannot write {}", target.display()))
}

/// The file's own time of its fork tells whose it is.
fn ours(file: &mut File, from: i64, to: i64) -> Result<()> {
    let ctime = rdb::ctime(file)?;
    ensure!(
        (from..=to).contains(&ctime),
        "it is of a save at {ctime}, and not between {from} and {to} (seconds since 1970)"
    );
    Ok(())
}

/// Has the file read through, where there is a program that can: as an account that owns nothing,
/// for what is in it is the server's.
async fn verify(redis: &Redis, file: &Path) -> Result<()> {
    let format = Format::at(file)?;
    let Some(program) = remote::installed(&format.programs("check-rdb")) else {
        return Ok(());
    };
    notify::status(&format!("checking the file of Redis {}", redis.name));
    let user = user::sandbox()?;
    Directory::of(file)?.0.lend(user.as_ref().map(|user| user.gid.as_raw()))?;
    let desk = tempfile::tempdir().context("cannot make a temporary directory")?;
    if let Some(user) = &user {
        Directory::open(desk.path())?.give(user.uid.as_raw(), user.gid.as_raw())?;
    }
    let mut confinement = Confinement::new(user.as_ref(), desk.path());
    confinement.readable.push(file.to_owned());
    let mut command = Command::from(confinement.command(&program));
    let output = command
        .arg(file)
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("cannot run {}", program.display()))?;
    let words = process::tail(&output.stdout);
    if rdb::is_unknown(&words) {
        tracing::warn!(
            "Redis {}: {} is older than the server and cannot check its file",
            redis.name,
            program.display()
        );
        return Ok(());
    }
    ensure!(
        output.status.success(),
        "{} finds {} damaged: {words}",
        program.display(),
        file.display()
    );
    Ok(())
}
