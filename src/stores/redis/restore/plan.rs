//! Which instances of a run are restored, and what a server tells of itself while it still runs.

use anyhow::{Context, Result, bail, ensure};

use super::unit::{known, unit};
use crate::config::{Config, Redis};
use crate::paths::RootDirectory;
use crate::runs::Manifest;
use crate::runs::restore::{Places, Request, StagedRedis};
use crate::stores::redis::files::{Files, plain, writable};
use crate::stores::redis::server::{Server, place};
use crate::systemd::ServiceManager;

/// Which instances of the run are restored.
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
    let known = known(&RootDirectory::host())?;
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

/// What it takes to put a file of `version` in place of the server's own.
async fn instance(
    redis: &Redis,
    version: &str,
    manager: &dyn ServiceManager,
) -> Result<StagedRedis> {
    let server = Server::connect(redis).await?;
    ensure_takes(&server, version).await?;
    let files = local_files(&server, redis).await?;
    let unit = unit(redis, files.process, manager).await?;
    let state = manager.state(&unit).await?;
    ensure!(state.load == "loaded", "{unit} is not there: correct [[redis]] unit");
    ensure!(!state.transient, "{unit} has no file, so it could not be started again: give it one");
    let append_only = append_only(&server).await?;
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

/// Fails if the server would not keep, or cannot read, a file of `version`.
async fn ensure_takes(server: &Server<'_>, version: &str) -> Result<()> {
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
    Ok(())
}

/// Where the server keeps its files, on this machine.
async fn local_files(server: &Server<'_>, redis: &Redis) -> Result<Files> {
    ensure!(
        server.is_local(),
        "it is at {}, and its files are not on this machine: a server takes a file only when it starts. 'restore --into DIR --only redis' lays the file \
         out; put it in place as its dump.rdb there, while that server is stopped",
        place(&redis.address)
    );
    let files = Files::of(server).await.with_context(|| {
        format!(
            "a server takes a file only when it starts, and that of {} cannot be put in place here. 'restore --into DIR --only redis' lays the file \
             out; put it in place as its dump.rdb, while that server is stopped",
            place(&redis.address)
        )
    })?;
    writable(&files.directory)?;
    Ok(files)
}

/// The names of the append-only directory (7.0 or newer) and file, if the server has them on.
async fn append_only(server: &Server<'_>) -> Result<Option<(Option<String>, String)>> {
    if server.setting("appendonly").await.as_deref() != Some("yes") {
        return Ok(None);
    }
    let file =
        server.setting("appendfilename").await.context("its appendfilename cannot be asked for")?;
    let directory = server.setting("appenddirname").await;
    let names = [Some(&file), directory.as_ref()].into_iter().flatten();
    names.into_iter().try_for_each(|name| plain(&name.into()))?;
    Ok(Some((directory, file)))
}

/// Major and minor version: a file is not read by an older one.
fn series(version: &str) -> (u32, u32) {
    let mut numbers = version.split('.').map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}
