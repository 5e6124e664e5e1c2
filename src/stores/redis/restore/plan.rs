//! Plans which instances are restored, and asks their servers for what a restore needs while they
//! still run.

use anyhow::{Context, Result, bail, ensure};

use super::unit::{find_unit, unfinished_instances};
use crate::config::{Config, Redis};
use crate::paths::RootDirectory;
use crate::runs::restore::{Places, StagedRedis};
use crate::stores::redis::connection::{Connection, describe_address};
use crate::stores::redis::server_files::{ServerFiles, ensure_plain_name, ensure_writable};
use crate::stores::restoration::Asked;
use crate::systemd::ServiceManager;

/// Plans the restore of every instance of the run, except those that the request skips.
pub(super) async fn plan_instances(
    config: &Config,
    root: &RootDirectory,
    asked: &Asked<'_>,
) -> Result<Vec<StagedRedis>> {
    let Asked { request, manifest, manager, .. } = *asked;
    let names = manifest.versions.iter().filter_map(|component| {
        Some((component.name.strip_prefix("redis-")?, component.version.as_str()))
    });
    // An interrupted restore may have left a server down. Its plan has what the server would say.
    let known = unfinished_instances(root)?;
    let mut staged = Vec::new();
    let mut failures = Vec::new();
    for (name, version) in
        names.filter(|(name, _)| !request.skip_redis.iter().any(|skip| skip == name))
    {
        let found = match config.redis.iter().find(|redis| redis.name == name) {
            Some(redis) => plan_instance(redis, version, manager).await,
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

/// Plans how to replace the server's file by one of a server of `version`.
async fn plan_instance(
    redis: &Redis,
    version: &str,
    manager: &dyn ServiceManager,
) -> Result<StagedRedis> {
    let server = Connection::connect(redis).await?;
    ensure_accepts(&server, version).await?;
    let files = local_files(&server, redis).await?;
    let unit = find_unit(redis, files.process, manager).await?;
    let state = manager.state(&unit).await?;
    ensure!(state.load == "loaded", "there is no unit {unit}: correct [[redis]] unit");
    ensure!(
        !state.transient,
        "{unit} is transient, so it cannot be started again: create a unit file for it"
    );
    let append_only = append_only_names(&server).await?;
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

/// Fails if the server cannot read a file of `version`, or would replace its data at once, as a
/// replica does.
async fn ensure_accepts(server: &Connection<'_>, version: &str) -> Result<()> {
    let info = server.info().await?;
    if let Some(master) = info.master() {
        bail!(
            "it is a replica of {master}, which would replace the restored data at once: name the \
             master in [[redis]] url, and restore there"
        );
    }
    let here = info.version();
    ensure!(
        series(&here) >= series(version),
        "its file is of version {version}, which the server here, {here}, cannot read"
    );
    Ok(())
}

/// The server's files, which must be on this host and writable.
async fn local_files(server: &Connection<'_>, redis: &Redis) -> Result<ServerFiles> {
    ensure!(
        server.is_local(),
        "it is at {}, and its files are not on this host: a server reads its file only when it \
         starts. 'restore --into DIR --only redis' extracts the file; stop that server and put \
         the file in place of its dump.rdb",
        describe_address(&redis.address)
    );
    let files = ServerFiles::find(server).await.with_context(|| {
        format!(
            "a server reads its file only when it starts, and that of {} cannot be put in place \
             here. 'restore --into DIR --only redis' extracts the file; stop that server and put \
             the file in place of its dump.rdb",
            describe_address(&redis.address)
        )
    })?;
    ensure_writable(&files.directory)?;
    Ok(files)
}

/// The names of the append-only directory (7.0 or newer) and file, if the server uses them.
async fn append_only_names(server: &Connection<'_>) -> Result<Option<(Option<String>, String)>> {
    if server.setting("appendonly").await.as_deref() != Some("yes") {
        return Ok(None);
    }
    let file =
        server.setting("appendfilename").await.context("cannot read its setting appendfilename")?;
    let directory = server.setting("appenddirname").await;
    let names = [Some(&file), directory.as_ref()].into_iter().flatten();
    names.into_iter().try_for_each(|name| ensure_plain_name(&name.into()))?;
    Ok(Some((directory, file)))
}

/// Major and minor version. A server cannot read a file of a newer one.
fn series(version: &str) -> (u32, u32) {
    let mut numbers = version.split('.').map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}
