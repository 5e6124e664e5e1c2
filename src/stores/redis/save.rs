//! Saves all Redis instances in parallel. The window lasts until all have forked.

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

use super::connection::{Connection, Info};
use super::rdb::{self, RdbFormat};
use super::remote::{self, Transfer};
use super::server_files::ServerFiles;
use crate::config::{Config, Redis};
use crate::host::beneath::Directory;
use crate::host::clock::Clock;
use crate::host::confined::Confinement;
use crate::host::{holes, own, process, user};
use crate::machine::Base;
use crate::paths;
use crate::runs::record::write_json;
use crate::systemd::notify;

/// The interval at which the state of a save is polled.
const POLL: Duration = Duration::from_millis(100);

/// The content of `redis.json` in the staging area: the saved instances, for the manifest.
#[derive(Serialize, Deserialize)]
pub(super) struct Saves {
    pub instances: Vec<Save>,
}

/// One saved instance.
#[derive(Serialize, Deserialize)]
pub(super) struct Save {
    pub name: String,
    pub version: String,
    file: String,
    bytes: u64,
    /// Whether a new save was needed. If not, the server's existing file was copied.
    saved: bool,
}

/// Saves every instance into the staging area.
pub async fn save(config: &Config, base: Base<'_>) -> Result<()> {
    let Base { clock, root, .. } = base;
    let staging = root.at(paths::STAGING).join("redis");
    own::make(&staging)?;
    let pending = Pending(Cell::new(config.redis.len()));
    if config.redis.is_empty() {
        notify::ready("there is no Redis to save");
    } else {
        notify::status(&format!("waiting for {} Redis instances to fork", config.redis.len()));
    }
    let saves = config.redis.iter().map(|redis| async {
        let limit = redis.timeout;
        let saved =
            timeout(limit.duration(), save_instance(redis, &staging, &pending, clock)).await;
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

/// The number of instances that have not forked yet.
struct Pending(Cell<usize>);

impl Pending {
    /// Counts one fork. After the last one, notifies systemd that the window may close.
    fn count_fork(&self) {
        self.0.set(self.0.get().saturating_sub(1));
        match self.0.get() {
            0 => notify::ready("every Redis has forked, waiting for the files"),
            left => notify::status(&format!("waiting for {left} Redis instances to fork")),
        }
    }
}

/// Saves one instance to `staging`, and checks the file.
async fn save_instance(
    redis: &Redis,
    staging: &Path,
    pending: &Pending,
    clock: &dyn Clock,
) -> Result<Save> {
    let server = Connection::connect(redis).await?;
    let name = format!("{}.rdb", redis.name);
    let target = staging.join(&name);
    // An earlier attempt may have left a file.
    own::remove(&target)?;
    let info = wait_until_idle(&server).await?;
    info.ensure_current()?;
    let saved = match local_files(&server).await {
        Some(source) => save_by_file(&server, (&info, &source), &target, pending, clock).await?,
        None => {
            save_by_replication(&server, &target, pending, clock).await?;
            true
        }
    };
    check_file(redis, &target).await?;
    let bytes =
        target.metadata().with_context(|| format!("cannot read {}", target.display()))?.len();
    Ok(Save { name: redis.name.clone(), version: info.version(), file: name, bytes, saved })
}

/// The instance's files, if they are on this host and can be read with the instance's own rights.
async fn local_files(server: &Connection<'_>) -> Option<ServerFiles> {
    match async { ServerFiles::find(server).await.and_then(|files| files.open().map(|_| files)) }
        .await
    {
        Ok(files) => Some(files),
        Err(error) => {
            tracing::info!("Redis {}: fetched over its protocol: {error:#}", server.redis.name);
            None
        }
    }
}

/// Waits until the instance has no child process at work. The caller sets the timeout.
async fn wait_until_idle(server: &Connection<'_>) -> Result<Info> {
    loop {
        let info = server.info().await?;
        if !info.is_busy() {
            return Ok(info);
        }
        sleep(POLL).await;
    }
}

/// Copies the instance's own file, after a new save if the file does not hold all data. Returns
/// whether a new save was needed.
async fn save_by_file(
    server: &Connection<'_>,
    (info, source): (&Info, &ServerFiles),
    target: &Path,
    pending: &Pending,
    clock: &dyn Clock,
) -> Result<bool> {
    if let Some((from, to)) = info.unchanged_since_save() {
        match open_save(source, from, to) {
            // Asked again after the file is open: if nothing has changed, the open file holds the
            // server's current data.
            Ok(file) if server.info().await?.unchanged_since_save() == Some((from, to)) => {
                pending.count_fork();
                copy(file, target).await?;
                return Ok(false);
            }
            Ok(_) => {}
            Err(error) => tracing::info!("Redis {}: a new save: {error:#}", server.redis.name),
        }
    }
    let (from, to) = run_bgsave(server, clock, || pending.count_fork()).await?;
    copy(open_save(source, from, to)?, target).await?;
    Ok(true)
}

/// Makes the instance save into its own file, and waits for the end of the save. Calls `on_fork`
/// when the instance has forked. Returns the earliest and the latest time at which the save began.
async fn run_bgsave(
    server: &Connection<'_>,
    clock: &dyn Clock,
    on_fork: impl FnOnce(),
) -> Result<(i64, i64)> {
    let requested = server.time(clock).await;
    start_bgsave(server).await?;
    on_fork();
    let info = loop {
        let info = server.info().await?;
        if !info.is_saving() {
            break info;
        }
        sleep(POLL).await;
    };
    info.ensure_last_save_succeeded()?;
    let end = info.number("rdb_last_save_time")?;
    ensure!(end >= requested - 1, "its save ended without a new file: its own log says why");
    Ok((requested - 1, end))
}

/// Repeats the last save of an instance if that save failed, so that the cause shows while GitLab
/// is up. An instance that is saved over the replication protocol writes no file, and is skipped.
///
/// # Errors
/// If the save fails again.
pub(super) async fn retry_failed(redis: &Redis, clock: &dyn Clock) -> Result<()> {
    let server = Connection::connect(redis).await?;
    let succeeded = server.info().await?.ensure_last_save_succeeded().is_ok();
    if succeeded || local_files(&server).await.is_none() {
        return Ok(());
    }
    let limit = redis.timeout;
    let save = async {
        let idle = wait_until_idle(&server).await.map(drop);
        idle.and(run_bgsave(&server, clock, || ()).await.map(drop))
    };
    timeout(limit.duration(), save)
        .await
        .with_context(|| format!("not done after {limit}"))
        .flatten()
}

/// Runs `BGSAVE`, whose answer means that the instance has forked. Waits and tries again while
/// another child process is at work.
async fn start_bgsave(server: &Connection<'_>) -> Result<()> {
    loop {
        match server.query_text(&["BGSAVE"]).await {
            Ok(reply) if reply.contains("started") => return Ok(()),
            Ok(reply) => bail!("BGSAVE was answered {reply:?}"),
            Err(error) => {
                let words = error.to_string();
                let is_busy = ["in progress", "child process", "can't BGSAVE", "Background"]
                    .iter()
                    .any(|part| words.contains(part));
                if !is_busy {
                    return Err(error).context(
                        "BGSAVE was refused: the user needs +bgsave in its ACL and the command \
                         must not be renamed; if the fork failed, set vm.overcommit_memory=1 \
                         (sysctl) or add memory",
                    );
                }
            }
        }
        wait_until_idle(server).await?;
    }
}

/// Saves the instance over the replication protocol.
async fn save_by_replication(
    server: &Connection<'_>,
    target: &Path,
    pending: &Pending,
    clock: &dyn Clock,
) -> Result<()> {
    let requested = server.time(clock).await;
    let transfer = Transfer::start(server, target).await?;
    pending.count_fork();
    transfer.finish().await?;
    let end = server.time(clock).await;
    let mut file =
        own::open(target).with_context(|| format!("cannot read {}", target.display()))?;
    ensure_saved_between(&mut file, requested - 1, end)
        .with_context(|| format!("{} is not the requested save", target.display()))?;
    file.sync_all().with_context(|| format!("cannot sync {}", target.display()))
}

/// Opens the server's file, and checks that its save began between `from` and `to`. A later save
/// creates a new file and does not change the open one.
fn open_save(source: &ServerFiles, from: i64, to: i64) -> Result<File> {
    let mut file =
        source.open()?.with_context(|| format!("{} is missing", source.path().display()))?;
    ensure_saved_between(&mut file, from, to)
        .with_context(|| format!("{} is not the file of this save", source.path().display()))?;
    file.rewind()?;
    Ok(file)
}

/// Copies an open file on another thread, because the other instances may not have forked yet.
///
/// Not by [`durable`](crate::host::durable): a retry removes an unfinished copy by its name, while
/// a temporary file that a crash left in this directory would be stored with the dumps. Nothing
/// reads the copy before `redis.json`, which is written last, names it.
async fn copy(source: File, target: &Path) -> Result<()> {
    let path = target.to_owned();
    let copy = move || -> std::io::Result<()> {
        let copy = own::create(&path)?;
        // The server can still write to the file: copy no holes, and nothing that it appends now.
        holes::copy(&source, &copy, source.metadata()?.len())?;
        copy.sync_all()
    };
    tokio::task::spawn_blocking(copy)
        .await?
        .with_context(|| format!("cannot write {}", target.display()))
}

/// Fails unless the header of the file says that its save began between `from` and `to`.
fn ensure_saved_between(file: &mut File, from: i64, to: i64) -> Result<()> {
    let ctime = rdb::read_ctime(file)?;
    ensure!(
        (from..=to).contains(&ctime),
        "its save began at {ctime}, and not between {from} and {to} (seconds since 1970)"
    );
    Ok(())
}

/// Checks the whole file with `redis-check-rdb`, if it is installed. The file is untrusted, so the
/// program runs confined, as the sandbox account.
async fn check_file(redis: &Redis, file: &Path) -> Result<()> {
    let format = RdbFormat::at(file)?;
    let Some(program) = remote::installed(&format.programs("check-rdb")) else {
        return Ok(());
    };
    notify::status(&format!("checking the file of Redis {}", redis.name));
    let user = user::sandbox()?;
    Directory::of(file)?.0.lend(user.as_ref().map(|user| user.gid.as_raw()))?;
    let workspace = tempfile::tempdir().context("cannot create a temporary directory")?;
    if let Some(user) = &user {
        Directory::open(workspace.path())?.give(user.uid.as_raw(), user.gid.as_raw())?;
    }
    let mut confinement = Confinement::new(user.as_ref(), workspace.path());
    confinement.readable.push(file.to_owned());
    let mut command = Command::from(confinement.command(&program));
    let output = command
        .arg(file)
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("cannot run {}", program.display()))?;
    let words = process::tail(&output.stdout);
    if rdb::is_unknown_format(&words) {
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
