//! Proxy units: each stands in for a service that systemd does not manage itself.
//!
//! A proxy unit does not notice when its service is stopped by another tool (`gitlab-ctl stop`, a
//! crash, a reboot). So before a run relies on the units, it queries every service and adjusts the
//! units without touching the services ("adopts" them). Before a capture counts as consistent, it
//! queries every service again.

mod service;

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

use crate::config::{Config, Proxy};
use crate::finding::Finding;
use crate::host::{durable, own, remedy};
use crate::paths::{self, RootDirectory};
use crate::runs::record::{read_json, write_json};
use crate::runs::restore::RestoreJournal;
use crate::systemd::{ActiveState, Mode, ServiceManager};
use crate::values::UnitName;
use service::Standing;

/// How long a unit may take to adopt the state of its service.
const FOLLOW: Duration = Duration::from_secs(60);
/// Poll interval of [`keep_down`]: the longest that a service can run before it is stopped again.
const KEEP_DOWN_POLL: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(50);
/// Long options of `docker exec` and `podman exec` that take a value.
const VALUED: [&str; 7] =
    ["user", "env", "workdir", "env-file", "detach-keys", "cidfile", "preserve-fds"];

/// `ExecStart=` of a proxy: starts the service, even if it seems to run, because a stop may be in
/// progress.
pub async fn start(config: Result<Config>, root: &RootDirectory, name: &str) -> Result<()> {
    let proxy = find(config, root, name)?;
    if is_adopting(root) {
        // Adopting a service never starts it.
        return service::ensure_standing(&proxy, Standing::Up).await;
    }
    service::run_until(&proxy, &proxy.start, Standing::Up).await
}

/// `ExecStop=` of a proxy: stops the service. Fails if its status command then still reports it as
/// running.
pub async fn stop(config: Result<Config>, root: &RootDirectory, name: &str) -> Result<()> {
    if is_adopting(root) {
        return Ok(());
    }
    let proxy = find(config, root, name)?;
    service::run_until(&proxy, &proxy.stop, Standing::Down).await
}

/// The proxy `name` as configured. If the configuration cannot be read any more, the proxy as it
/// was when the last run began, so that GitLab can be started.
fn find(config: Result<Config>, root: &RootDirectory, name: &str) -> Result<Proxy> {
    let proxies = match config {
        Ok(config) => config.gitlab.proxies,
        Err(error) => {
            let kept: Option<Vec<Proxy>> = read_json(&root.at(paths::PROXIES))?;
            let Some(kept) = kept else { return Err(error) };
            tracing::error!(
                "{error:#}: '{name}' is started and stopped as it was configured when the last \
                 run began"
            );
            kept
        }
    };
    let found = proxies.into_iter().find(|proxy| proxy.name == name);
    found.with_context(|| {
        format!("there is no [[gitlab.proxy]] '{name}': '{}' removes its unit", remedy::install())
    })
}

/// Queries every service and adjusts the units to match, without touching the services. Fails if
/// the status of one is unknown.
pub async fn adopt<M: ServiceManager>(
    config: &Config,
    root: &RootDirectory,
    connect: impl AsyncFnOnce() -> Result<M>,
) -> Result<()> {
    let proxies = &config.gitlab.proxies;
    write_json(&root.at(paths::PROXIES), proxies)?;
    let mut standings = Vec::new();
    for (proxy, standing) in proxies.iter().zip(query_all(proxies).await) {
        standings.push((proxy.unit(), standing?));
    }
    durable::write(&root.at(paths::ADOPTING), 0o600, "")?;
    let adopted = adjust_units(&connect().await?, &standings).await;
    adopted.and(end_adoption(root))
}

/// Ends the adoption; also `ExecStopPost=` of the unit that adopts, in case [`adopt`] was killed.
pub fn end_adoption(root: &RootDirectory) -> Result<()> {
    own::remove(root.at(paths::ADOPTING))
}

/// Stops units that are about to be removed, without stopping their services.
pub async fn detach(
    manager: &dyn ServiceManager,
    root: &RootDirectory,
    units: &[UnitName],
) -> Result<()> {
    if units.is_empty() {
        return Ok(());
    }
    own::make(root.at(paths::RUNTIME))?;
    durable::write(&root.at(paths::ADOPTING), 0o600, "")?;
    let standings: Vec<_> = units.iter().map(|unit| (unit.clone(), Standing::Down)).collect();
    let detached = adjust_units(manager, &standings).await;
    detached.and(end_adoption(root))
}

fn is_adopting(root: &RootDirectory) -> bool {
    root.at(paths::ADOPTING).exists()
}

/// Starts the units whose service is up and stops the others, and waits for the results.
async fn adjust_units(
    manager: &dyn ServiceManager,
    standings: &[(UnitName, Standing)],
) -> Result<()> {
    for (unit, standing) in standings {
        let state = manager.state(unit.as_str()).await?;
        match (standing, state.active) {
            (Standing::Up, _) if state.load == "not-found" => {
                bail!("{unit} is not installed: '{}'", remedy::install())
            }
            (Standing::Up, ActiveState::Active) | (Standing::Down, ActiveState::Inactive) => {}
            (Standing::Up, _) => drop(manager.start(unit.as_str(), Mode::Replace).await?),
            (Standing::Down, ActiveState::Failed) => manager.reset_failed(unit.as_str()).await?,
            (Standing::Down, _) => drop(manager.stop(unit.as_str(), Mode::Replace).await?),
        }
    }
    let since = Instant::now();
    for (unit, standing) in standings {
        loop {
            let state = manager.state(unit.as_str()).await?;
            let matches = match standing {
                Standing::Up => state.active == ActiveState::Active,
                Standing::Down => state.active.is_down(),
            };
            if matches && !state.has_job() {
                break;
            }
            let start_failed = *standing == Standing::Up && state.is_settled();
            if start_failed || since.elapsed() > FOLLOW {
                bail!(
                    "{unit} does not follow its service, which {standing}: it is {:?} (journalctl \
                     -u {unit})",
                    state.active
                );
            }
            sleep(PAUSE).await;
        }
    }
    Ok(())
}

/// The standing of each service.
async fn query_all(proxies: &[Proxy]) -> Vec<Result<Standing>> {
    let answers = service::answers(&proxies.iter().collect::<Vec<_>>()).await;
    answers.into_iter().map(|answer| answer.map(|(standing, _)| standing)).collect()
}

/// Fails with the services that run although they were stopped: then the captured state is not
/// consistent.
pub async fn ensure_all_down(config: &Config) -> Result<()> {
    let proxies: Vec<&Proxy> = config.gitlab.writing_proxies().collect();
    let answers = proxies.iter().zip(service::answers(&proxies).await);
    let down =
        answers.map(|(proxy, answer)| service::check_standing(proxy, answer, Standing::Down));
    let running: Vec<String> =
        down.filter_map(|down| down.err().map(|error| format!("{error:#}"))).collect();
    ensure!(
        running.is_empty(),
        "{}: it was started in the window, so the captured data is not reliable",
        running.join("; ")
    );
    Ok(())
}

/// Stops every service that comes up while GitLab is half restored: after a reboot, its own
/// supervisor starts it.
pub async fn keep_down(config: &Config, root: &RootDirectory) -> Result<()> {
    let proxies: Vec<&Proxy> = config.gitlab.writing_proxies().collect();
    while let Some(why) = RestoreJournal::half_way(root) {
        for (proxy, answer) in proxies.iter().zip(service::answers(&proxies).await) {
            // A status command fails as long as the supervisor has not started.
            if matches!(answer, Ok((Standing::Up, _))) {
                tracing::error!("'{}' was started, and is stopped: {why}", proxy.name);
                if let Err(error) = service::run_until(proxy, &proxy.stop, Standing::Down).await {
                    tracing::error!("{error:#}");
                }
            }
        }
        sleep(KEEP_DOWN_POLL).await;
    }
    Ok(())
}

/// For `check`: whether the programs of each proxy exist and its status is known.
pub async fn findings(config: &Config) -> Vec<Finding> {
    let proxies = &config.gitlab.proxies;
    let mut findings = Vec::new();
    for (proxy, standing) in proxies.iter().zip(query_all(proxies).await) {
        let missing = [&proxy.start, &proxy.stop, &proxy.status]
            .into_iter()
            .find(|argv| !Path::new(&argv[0]).is_file());
        let what = format!("proxy {}", proxy.name);
        findings.push(match (missing, standing) {
            (Some(argv), _) => Finding::of(
                what,
                Err(anyhow!("{} does not exist: correct [[gitlab.proxy]]", argv[0])),
            ),
            (None, Ok(Standing::Up)) => Finding::of(what, Ok("runs".to_owned())),
            (None, Ok(Standing::Down)) => {
                Finding::of(what, Ok("is down, and would not be started by a run".to_owned()))
            }
            (None, Err(error)) => Finding::of(what, Err(error)),
        });
    }
    for container in containers(proxies) {
        findings.extend(find_health_check(&container).await);
    }
    findings
}

/// The engine and the name of each container that proxies run commands in.
fn containers(proxies: &[Proxy]) -> Vec<(String, String)> {
    let mut containers: Vec<(String, String)> = Vec::new();
    for argv in proxies.iter().map(|proxy| &proxy.stop) {
        let engine = Path::new(&argv[0])
            .file_name()
            .is_some_and(|name| name == "docker" || name == "podman");
        if !engine || argv.get(1).is_none_or(|word| word != "exec") {
            continue;
        }
        let container = container(&argv[2..]).map(|name| (argv[0].clone(), name.clone()));
        containers.extend(container.filter(|container| !containers.contains(container)));
    }
    containers
}

/// The name of the container among the words after `exec`: the first that is neither an option nor
/// the value of one.
fn container(words: &[String]) -> Option<&String> {
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let takes_next = match (word.strip_prefix("--"), word.strip_prefix('-')) {
            (Some(""), _) => return words.next(),
            (Some(long), _) => VALUED.contains(&long),
            // Combined short options: the value of the first that takes one is the rest of the
            // word, or else the next word.
            (None, Some(short)) => {
                short.find(['u', 'e', 'w']).is_some_and(|at| at + 1 == short.len())
            }
            (None, None) => return Some(word),
        };
        if takes_next {
            words.next();
        }
    }
    None
}

/// Warns about a container with a health check, because GitLab is unhealthy while it is stopped.
/// Errors of the engine are ignored: the status command reports them.
async fn find_health_check((engine, name): &(String, String)) -> Option<Finding> {
    let mut command = Command::new(engine);
    command
        .args(["inspect", "--format", "{{json .Config.Healthcheck}}", name])
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = timeout(FOLLOW, command.output()).await.ok()?.ok()?;
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if !output.status.success() || said.is_empty() || said == "null" || said.contains("NONE") {
        return None;
    }
    let words = format!(
        "it has a health check, which finds GitLab unhealthy while it is stopped: what restarts \
         unhealthy containers (Swarm, Kubernetes, autoheal) would break into the window; give the \
         check more time than [gitlab] max-downtime, or switch it off ({said})"
    );
    Some(Finding::warning(format!("container {name}"), words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_container_is_found_after_any_options() {
        for (words, expected) in [
            ("gitlab gitlab-ctl stop puma", Some("gitlab")),
            ("-u git gitlab gitlab-ctl stop puma", Some("gitlab")),
            ("-ugit -it gitlab x", Some("gitlab")),
            ("-itu git gitlab x", Some("gitlab")),
            ("--user git --env A=b -w /tmp gitlab x", Some("gitlab")),
            (
                "--user=git --workdir /tmp --env-file f --detach-keys ctrl-a gitlab -u x",
                Some("gitlab"),
            ),
            ("--privileged -e A -- gitlab x", Some("gitlab")),
            ("-u git", None),
        ] {
            let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
            assert_eq!(container(&words).map(String::as_str), expected, "{words:?}");
        }
    }
}
