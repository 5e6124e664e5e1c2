//! Finds the unit that runs a Redis server.

use anyhow::{Context, Result, ensure};

use crate::config::{Config, Proxy, Redis};
use crate::machine::Machine;
use crate::paths::RootDirectory;
use crate::runs::restore::{RestoreJournal, StagedRedis};
use crate::stores::redis::connection::Connection;
use crate::stores::redis::process::ServerProcess;
use crate::systemd::ServiceManager;

/// The PID of the server. If the kernel does not show it, the server itself is asked.
async fn pid(redis: &Redis, process: ServerProcess) -> Result<u32> {
    match process.pid {
        0 => Ok(u32::try_from(
            Connection::connect(redis).await?.info().await?.number("process_id")?,
        )?),
        pid => Ok(pid),
    }
}

/// Finds the unit of the server's process, by its control group.
///
/// # Errors
/// If no unit runs the process, or another one than `[[redis]] unit` names.
pub(super) async fn find_unit(
    redis: &Redis,
    process: ServerProcess,
    manager: &dyn ServiceManager,
) -> Result<String> {
    let found = match pid(redis, process).await {
        Ok(pid) => manager.unit_of(pid).await,
        Err(error) => Err(error),
    };
    match &redis.unit {
        // The service behind a proxy runs in another unit, or in none.
        Some(unit) if unit.as_str().starts_with(Proxy::PREFIX) => Ok(unit.to_string()),
        Some(unit) => {
            let found = found.with_context(|| {
                format!("process {}, which listens there, is not in {unit}", process.pid)
            })?;
            ensure!(
                found == unit.as_str(),
                "{found} runs the server, and not {unit}: correct [[redis]] unit or url"
            );
            Ok(found)
        }
        None => {
            let unit =
                found.context("no unit of this host runs it: name its unit by [[redis]] unit")?;
            ensure_main_process(&unit, process, manager).await?;
            Ok(unit)
        }
    }
}

/// Fails if the process is not the main process of `unit`. Restarting another unit in which the
/// server's account has a process would not restart the server.
async fn ensure_main_process(
    unit: &str,
    process: ServerProcess,
    manager: &dyn ServiceManager,
) -> Result<()> {
    let state = manager.state(unit).await?;
    // The sandbox may hide the process from this unit, but systemd knows the unit's account.
    ensure!(
        process.pid == 0 || state.uid == Some(process.account.uid) || process.is_alive(),
        "process {}, which began to listen there as user {}, has ended, or {unit} runs as another \
         user: name the server's unit by [[redis]] unit",
        process.pid,
        process.account.uid
    );
    let main = state.main_pid;
    // PID 0 means that a root process reported its own PID, which can be trusted.
    ensure!(
        process.pid == 0 || process.pid == main,
        "process {}, which listens there, is in {unit} and not its main process, which is {main}: \
         name the server's unit by [[redis]] unit",
        process.pid
    );
    Ok(())
}

/// The instances in the journal of an unfinished restore.
pub(super) fn unfinished_instances(root: &RootDirectory) -> Result<Vec<StagedRedis>> {
    Ok(RestoreJournal::load(root)?.map(|journal| journal.plan.redis).unwrap_or_default())
}

/// The units of the configured instances, and of those of an unfinished restore. An instance whose
/// unit cannot be found is left out.
pub async fn units(config: &Config, machine: Machine<'_>) -> Result<Vec<String>> {
    let Machine { manager, root, .. } = machine;
    let mut units: Vec<String> =
        unfinished_instances(root)?.into_iter().map(|redis| redis.unit).collect();
    for redis in &config.redis {
        match &redis.unit {
            Some(unit) => units.push(unit.to_string()),
            None => {
                let found = async {
                    let process = Connection::connect(redis).await?.process()?;
                    find_unit(redis, process, manager).await
                };
                units.extend(found.await.ok());
            }
        }
    }
    Ok(units)
}
