//! Redis: a server reads its file only when it starts, so its unit is stopped, the file put in place, and the unit started.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::time::{Instant, sleep};

use crate::config::{Config, Proxy, Redis};
use crate::runs::Manifest;
use crate::runs::restore::{Journal, Move, Plan, Request, StagedRedis};
use crate::steps::redis::save;
use crate::steps::redis::server::{Server, place};
use crate::systemd::{ActiveState, Manager, notify};

use super::moves::one;

const PAUSE: Duration = Duration::from_millis(100);
/// How long a server may take to stop: it may save first.
const STOP: Duration = Duration::from_secs(600);

/// Which instances of the run are restored, and what there is to know of each while it still runs.
pub(super) async fn plan(config: &Config, request: &Request, manifest: &Manifest, manager: &Manager) -> Result<Vec<StagedRedis>> {
    let names = manifest.versions.iter().filter_map(|component| Some((component.name.strip_prefix("redis-")?, component.version.as_str())));
    // A restore that died while it had a server down has found out what it takes.
    let known = known()?;
    let mut staged = Vec::new();
    let mut failures = Vec::new();
    for (name, version) in names.filter(|(name, _)| !request.skip_redis.iter().any(|skip| skip == name)) {
        let found = match config.redis.iter().find(|redis| redis.name == name) {
            Some(redis) => instance(redis, version, manager).await,
            None => Err(anyhow::anyhow!("it is in the run and not in [[redis]]")),
        };
        match found {
            Ok(instance) => staged.push(instance),
            Err(_) if known.iter().any(|known| known.name == name) => staged.extend(known.iter().find(|known| known.name == name).cloned()),
            Err(error) => failures.push(format!("{name}: {error:#} (--skip-redis {name} leaves it as it is)")),
        }
    }
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(staged)
}

async fn instance(redis: &Redis, version: &str, manager: &Manager) -> Result<StagedRedis> {
    let server = Server::connect(redis).await?;
    let info = server.info().await?;
    let here = info.version();
    ensure!(series(&here) >= series(version), "its file is of version {version}, which the server here, {here}, cannot read");
    let Some(path) = save::local_file(&server).await else {
        bail!(
            "it is at {}, and its files are not on this machine: a server takes a file only when it starts. 'restore --into DIR --only redis' lays the file \
             out; put it in place as its dump.rdb there, while that server is stopped",
            place(&redis.address)
        );
    };
    let unit = match &redis.unit {
        Some(unit) => unit.to_string(),
        None => {
            let pid = u32::try_from(info.number("process_id")?)?;
            manager.unit_of(pid).await.context("no unit of this host runs it: name its unit by [[redis]] unit")?
        }
    };
    let state = manager.state(&unit).await?;
    ensure!(state.load == "loaded", "{unit} is not there: correct [[redis]] unit");
    ensure!(!state.transient, "{unit} has no file, so it could not be started again: give it one");
    let append_only = match server.setting("appendonly").await.as_deref() {
        Some("yes") => {
            let file = server.setting("appendfilename").await.context("its appendfilename cannot be asked for")?;
            Some((server.setting("appenddirname").await, file))
        }
        _ => None,
    };
    let directory = path.parent().context("its directory is not known")?.to_owned();
    let file = path.file_name().context("its file's name is not known")?.to_string_lossy().into_owned();
    Ok(StagedRedis { name: redis.name.clone(), unit, directory, file, append_only })
}

/// Major and minor version: a file is not read by an older one.
fn series(version: &str) -> (u32, u32) {
    let mut numbers = version.split('.').map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// The instances of an unfinished restore.
fn known() -> Result<Vec<StagedRedis>> {
    Ok(Journal::load()?.map(|journal| journal.plan.redis).unwrap_or_default())
}

/// The units of the instances that are configured and run by one.
pub async fn units(config: &Config, manager: &Manager) -> Result<Vec<String>> {
    let mut units: Vec<String> = known()?.into_iter().map(|redis| redis.unit).collect();
    for redis in &config.redis {
        match &redis.unit {
            Some(unit) => units.push(unit.to_string()),
            None => {
                let pid =
                    async { u32::try_from(Server::connect(redis).await?.info().await?.number("process_id")?).map_err(anyhow::Error::from) };
                if let Ok(pid) = pid.await {
                    units.extend(manager.unit_of(pid).await.ok());
                }
            }
        }
    }
    Ok(units)
}

/// Stops the servers, and waits until they are down.
pub(super) async fn stop(plan: &Plan, manager: &Manager) -> Result<()> {
    for redis in &plan.redis {
        notify::status(&format!("stopping {}", redis.unit));
        manager.stop(&redis.unit).await?;
    }
    let started = Instant::now();
    for redis in &plan.redis {
        while !manager.state(&redis.unit).await?.is_settled() {
            ensure!(started.elapsed() < STOP, "{} does not stop", redis.unit);
            sleep(PAUSE).await;
        }
        // Of a unit's own processes nothing is left then; a proxy says so of a service that may run on.
        let failed = manager.state(&redis.unit).await?.active == ActiveState::Failed && redis.unit.starts_with(Proxy::PREFIX);
        ensure!(!failed, "the service behind {} does not stop (journalctl -u {})", redis.unit, redis.unit);
    }
    Ok(())
}

/// Starts the servers, and waits until they answer with what they have read.
pub(super) async fn start(config: &Config, plan: &Plan, manager: &Manager) -> Result<()> {
    for staged in &plan.redis {
        manager.reset(&staged.unit).await?;
        manager.start(&staged.unit, "replace").await?;
    }
    for staged in &plan.redis {
        notify::status(&format!("waiting for {}", staged.unit));
        let Some(redis) = config.redis.iter().find(|redis| redis.name == staged.name) else { continue };
        let deadline = Instant::now() + redis.timeout.duration();
        while let Err(error) = loaded(redis).await {
            let state = manager.state(&staged.unit).await?;
            ensure!(
                Instant::now() < deadline && !(state.is_settled() && state.active == ActiveState::Failed),
                "{} does not come back with its file: {error:#} (journalctl -u {})",
                staged.unit,
                staged.unit
            );
            sleep(PAUSE).await;
        }
    }
    Ok(())
}

async fn loaded(redis: &Redis) -> Result<()> {
    let info = Server::connect(redis).await?.info().await?;
    ensure!(info.number("loading")? == 0, "it is loading");
    Ok(())
}

/// Our directories beside a server's files.
pub(super) fn directories(plan: &Plan, redis: &StagedRedis) -> (PathBuf, PathBuf) {
    let run = plan.run.as_ref().map_or("", |run| run.as_str());
    let name = |word: &str| redis.directory.join(format!(".gitlab-backup-{word}-{run}"));
    (name("restore"), name("replaced"))
}

/// Lays the file out beside the server's own. The server is down: what it wrote last is what goes aside.
pub(super) fn lay(plan: &Plan, redis: &StagedRedis, dumps: &Path) -> Result<Vec<Move>> {
    let (staged, aside) = directories(plan, redis);
    let like = redis.directory.metadata().with_context(|| format!("cannot read {}", redis.directory.display()))?;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&staged).with_context(|| format!("cannot make {}", staged.display()))?;
    let mut all = Vec::new();
    let mut add = |name: &str, with: bool| -> Result<()> {
        let new = staged.join(name);
        if with {
            let copy = || -> Result<()> {
                fs::copy(dumps.join(format!("{}.rdb", redis.name)), &new)?;
                fs::set_permissions(&new, fs::Permissions::from_mode(0o640))?;
                chown(&new, Some(like.uid()), Some(like.gid()))?;
                fs::File::open(&new)?.sync_all().map_err(Into::into)
            };
            copy().with_context(|| format!("cannot lay the file of Redis {} out as {}", redis.name, new.display()))?;
        }
        all.push(one(&redis.directory.join(name), with.then_some(new), aside.join(name)));
        Ok(())
    };
    add(&redis.file, true)?;
    if let Some((directory, file)) = &redis.append_only {
        // It starts from this one alone, which may begin with an RDB; 7.0 and newer take it over into their directory.
        add(file, true)?;
        if let Some(directory) = directory {
            add(directory, false)?;
        }
    }
    Ok(all)
}
