//! Redis: a server reads its file only when it starts, so its unit is stopped, the file put in
//! place, and the unit started.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Seek;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::time::{Instant, sleep};

use crate::config::{Config, Proxy, Redis};
use crate::host::beneath::Directory;
use crate::paths::RootDirectory;
use crate::runs::Manifest;
use crate::runs::restore::{Journal, Move, Moves, Places, Request, RestorePlan, StagedRedis};
use crate::stores::redis::files::{Files, own, plain, writable};
use crate::stores::redis::process::Behind;
use crate::stores::redis::server::{Server, place};
use crate::systemd::{ActiveState, Mode, ServiceManager, notify};

const PAUSE: Duration = Duration::from_millis(100);
/// How long a server may take to stop: it may save first.
const STOP: Duration = Duration::from_secs(600);

/// Which instances of the run are restored, and what there is to know of each while it still runs.
pub(super) async fn plan(
    config: &Config,
    request: &Request,
    manifest: &Manifest,
    manager: &dyn ServiceManager,
) -> Result<Vec<StagedRedis>> {
    let names = manifest.versions.iter().filter_map(|component| {
        Some((component.name.strip_prefix("redis-")?, component.version.as_str()))
    });
    // A restore that died while it had a server down has found out what it takes.
    let known = known()?;
    let mut staged = Vec::new();
    let mut failures = Vec::new();
    for (name, version) in
        names.filter(|(name, _)| !request.skip_redis.iter().any(|skip| skip == name))
    {
        let found = match config.redis.iter().find(|redis| redis.name == name) {
            Some(redis) => instance(redis, version, manager).await,
            None => Err(anyhow::anyhow!("it is in the run and not in [[redis]]")),
        };
        match found {
            Ok(instance) => staged.push(instance),
            Err(_) if known.iter().any(|known| known.name == name) => {
                staged.extend(known.iter().find(|known| known.name == name).cloned())
            }
            Err(error) => {
                failures.push(format!("{name}: {error:#} (--skip-redis {name} leaves it as it is)"))
            }
        }
    }
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(staged)
}

async fn instance(
    redis: &Redis,
    version: &str,
    manager: &dyn ServiceManager,
) -> Result<StagedRedis> {
    let server = Server::connect(redis).await?;
    let info = server.info().await?;
    if let Some(master) = info.master() {
        bail!(
            "it is a replica of {master}, whose data would be back at once: name the master in [[redis]] url, and restore there"
        );
    }
    let here = info.version();
    ensure!(
        series(&here) >= series(version),
        "its file is of version {version}, which the server here, {here}, cannot read"
    );
    ensure!(
        server.is_local(),
        "it is at {}, and its files are not on this machine: a server takes a file only when it starts. 'restore --into DIR --only redis' lays the file \
         out; put it in place as its dump.rdb there, while that server is stopped",
        place(&redis.address)
    );
    let files = Files::of(&server).await.with_context(|| {
        format!(
            "a server takes a file only when it starts, and that of {} cannot be put in place here. 'restore --into DIR --only redis' lays the file \
             out; put it in place as its dump.rdb, while that server is stopped",
            place(&redis.address)
        )
    })?;
    writable(&files.directory)?;
    let unit = unit(redis, files.process, manager).await?;
    let state = manager.state(&unit).await?;
    ensure!(state.load == "loaded", "{unit} is not there: correct [[redis]] unit");
    ensure!(!state.transient, "{unit} has no file, so it could not be started again: give it one");
    let append_only = match server.setting("appendonly").await.as_deref() {
        Some("yes") => {
            let file = server
                .setting("appendfilename")
                .await
                .context("its appendfilename cannot be asked for")?;
            let directory = server.setting("appenddirname").await;
            [Some(&file), directory.as_ref()]
                .into_iter()
                .flatten()
                .try_for_each(|name| plain(&name.into()))?;
            Some((directory, file))
        }
        _ => None,
    };
    let file = files.name.to_str().context("its file's name is not UTF-8")?.to_owned();
    let places = Places::planned(&files.directory)?;
    Ok(StagedRedis {
        name: redis.name.clone(),
        unit,
        account: files.process.account,
        directory: files.directory,
        file,
        append_only,
        places,
    })
}

/// The number of the process behind the address.
async fn pid(redis: &Redis, process: Behind) -> Result<u32> {
    match process.pid {
        0 => Ok(u32::try_from(Server::connect(redis).await?.info().await?.number("process_id")?)?),
        pid => Ok(pid),
    }
}

/// The unit that runs the process behind the address: by its control group. One that is configured
/// must be that one.
async fn unit(redis: &Redis, process: Behind, manager: &dyn ServiceManager) -> Result<String> {
    let found = match pid(redis, process).await {
        Ok(pid) => manager.unit_of(pid).await,
        Err(error) => Err(error),
    };
    match &redis.unit {
        // What is behind a unit of ours has another of its own.
        Some(unit) if unit.as_str().starts_with(Proxy::PREFIX) => Ok(unit.to_string()),
        Some(unit) => {
            let found = found.with_context(|| {
                format!("process {}, which listens there, is not of {unit}", process.pid)
            })?;
            ensure!(
                found == unit.as_str(),
                "{found} runs the server, and not {unit}: correct [[redis]] unit or url"
            );
            Ok(found)
        }
        None => {
            own_unit(
                &found.context("no unit of this host runs it: name its unit by [[redis]] unit")?,
                process,
                manager,
            )
            .await
        }
    }
}

/// Fails if the process is not what `unit` is there for: the server's account may have processes in
/// units of others.
async fn own_unit(unit: &str, process: Behind, manager: &dyn ServiceManager) -> Result<String> {
    let state = manager.state(unit).await?;
    // Its processes may be hidden from this unit; whom it runs as systemd knows.
    ensure!(
        process.pid == 0 || state.uid == Some(process.account.uid) || process.is_seen(),
        "process {}, which began to listen there as user {}, is gone, or {unit} runs as another: name the server's unit by [[redis]] unit",
        process.pid,
        process.account.uid
    );
    let main = state.main_pid;
    // Of root's own processes only root tells the number.
    ensure!(
        process.pid == 0 || process.pid == main,
        "process {}, which listens there, is in {unit} and not its main process, which is {main}: name the server's unit by [[redis]] unit",
        process.pid
    );
    Ok(unit.to_owned())
}

/// Major and minor version: a file is not read by an older one.
fn series(version: &str) -> (u32, u32) {
    let mut numbers = version.split('.').map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// The instances of an unfinished restore.
fn known() -> Result<Vec<StagedRedis>> {
    Ok(Journal::load(&RootDirectory::host())?.map(|journal| journal.plan.redis).unwrap_or_default())
}

/// The units of the instances that are configured and run by one.
pub async fn units(config: &Config, manager: &dyn ServiceManager) -> Result<Vec<String>> {
    let mut units: Vec<String> = known()?.into_iter().map(|redis| redis.unit).collect();
    for redis in &config.redis {
        match &redis.unit {
            Some(unit) => units.push(unit.to_string()),
            None => {
                let found =
                    async { unit(redis, Server::connect(redis).await?.process()?, manager).await };
                units.extend(found.await.ok());
            }
        }
    }
    Ok(units)
}

/// Fails with a server that somebody has started after `since`: it has read what was to be
/// replaced, and writes it when it ends.
pub(super) async fn ensure_down(
    plan: &RestorePlan,
    manager: &dyn ServiceManager,
    since: u64,
) -> Result<()> {
    for redis in &plan.redis {
        let state = manager.state(&redis.unit).await?;
        ensure!(
            state.is_settled() && state.inactive_exit < since,
            "{} was started by somebody else while its file was replaced ('systemctl list-dependencies --reverse {}' tells what wants it)",
            redis.unit,
            redis.unit
        );
    }
    Ok(())
}

/// Stops the servers, and waits until they are down. One that somebody starts meanwhile is stopped
/// again.
pub(super) async fn stop(plan: &RestorePlan, manager: &dyn ServiceManager) -> Result<()> {
    for redis in &plan.redis {
        notify::status(&format!("stopping {}", redis.unit));
        manager.stop(&redis.unit, Mode::Replace).await?;
    }
    let started = Instant::now();
    for redis in &plan.redis {
        loop {
            let state = manager.state(&redis.unit).await?;
            if state.is_settled() {
                break;
            }
            ensure!(started.elapsed() < STOP, "{} does not stop", redis.unit);
            if state.active == ActiveState::Active && !state.has_job() {
                manager.stop(&redis.unit, Mode::Replace).await?;
            }
            sleep(PAUSE).await;
        }
        // Of a unit's own processes nothing is left then; a proxy says so of a service that may run
        // on.
        let failed = manager.state(&redis.unit).await?.active == ActiveState::Failed
            && redis.unit.starts_with(Proxy::PREFIX);
        ensure!(
            !failed,
            "the service behind {} does not stop (journalctl -u {})",
            redis.unit,
            redis.unit
        );
    }
    Ok(())
}

/// Starts the servers, and waits until they answer with what they have read.
pub(super) async fn start(
    config: &Config,
    plan: &RestorePlan,
    manager: &dyn ServiceManager,
) -> Result<()> {
    for staged in &plan.redis {
        manager.reset_failed(&staged.unit).await?;
        manager.start(&staged.unit, Mode::Replace).await?;
    }
    for staged in &plan.redis {
        notify::status(&format!("waiting for {}", staged.unit));
        let Some(redis) = config.redis.iter().find(|redis| redis.name == staged.name) else {
            continue;
        };
        let deadline = Instant::now() + redis.timeout.duration();
        while let Err(error) = loaded(redis).await {
            let state = manager.state(&staged.unit).await?;
            ensure!(
                Instant::now() < deadline
                    && !(state.is_settled() && state.active == ActiveState::Failed),
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

/// Lays the file out beside the server's own, with the server's rights. The server is down: what it
/// wrote last is what goes aside.
pub(super) fn lay(redis: &mut StagedRedis, dumps: &Path) -> Result<Moves> {
    let file = format!("{}.rdb", redis.name);
    let content = Directory::open(dumps)?.file(Path::new(&file))?;
    let account = redis.account;
    account.act(|| laid(redis, &content)).with_context(|| {
        format!("cannot lay the file of Redis {} out in {}", redis.name, redis.directory.display())
    })
}

fn laid(redis: &mut StagedRedis, content: &File) -> Result<Moves> {
    let directory = own(&redis.directory, redis.account)?;
    let places = &mut redis.places;
    // Of an attempt before this one, which was taken back.
    places.staged.remove()?;
    places.aside.remove_empty()?;
    places.make()?;
    let staged = places.staged.open()?;
    let mut steps = Vec::new();
    let mut add = |name: &str, with: bool| -> Result<()> {
        if with {
            // Not by `durable`: the file only gets its final name when GitLab is down and
            // everything is staged (`Moves`), and all file systems are synced before that.
            let mut new = staged.create(OsStr::new(name), 0o640)?;
            let mut content = content;
            content.rewind()?;
            std::io::copy(&mut content, &mut new)?;
            new.sync_all()?;
        }
        let old = directory.look(Path::new(name))?.is_some();
        steps.push(Move { live: redis.directory.join(name), inside: name.into(), new: with, old });
        Ok(())
    };
    add(&redis.file, true)?;
    if let Some((directory, file)) = &redis.append_only {
        // It starts from this one alone, which may begin with an RDB; 7.0 and newer take it over
        // into their directory.
        add(file, true)?;
        if let Some(directory) = directory {
            add(directory, false)?;
        }
    }
    Ok(Moves { places: redis.places.clone(), account: Some(redis.account), steps })
}
