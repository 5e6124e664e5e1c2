//! Which unit runs a server.

use anyhow::{Context, Result, ensure};

use crate::config::{Config, Proxy, Redis};
use crate::machine::Machine;
use crate::paths::RootDirectory;
use crate::runs::restore::{Journal, StagedRedis};
use crate::stores::redis::process::Behind;
use crate::stores::redis::server::Server;
use crate::systemd::ServiceManager;

/// The number of the process behind the address.
async fn pid(redis: &Redis, process: Behind) -> Result<u32> {
    match process.pid {
        0 => Ok(u32::try_from(Server::connect(redis).await?.info().await?.number("process_id")?)?),
        pid => Ok(pid),
    }
}

/// The unit that runs the process behind the address: by its control group. One that is configured
/// must be that one.
pub(super) async fn unit(
    redis: &Redis,
    process: Behind,
    manager: &dyn ServiceManager,
) -> Result<String> {
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

/// The instances of an unfinished restore.
pub(super) fn known(root: &RootDirectory) -> Result<Vec<StagedRedis>> {
    Ok(Journal::load(root)?.map(|journal| journal.plan.redis).unwrap_or_default())
}

/// The units of the instances that are configured and run by one.
pub async fn units(config: &Config, machine: Machine<'_>) -> Result<Vec<String>> {
    let Machine { manager, root, .. } = machine;
    let mut units: Vec<String> = known(root)?.into_iter().map(|redis| redis.unit).collect();
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
