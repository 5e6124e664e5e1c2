//! What systemd does not manage itself: the services behind the proxy units, and how the units are
//! kept true.
//!
//! A proxy unit cannot know what happens behind its back (`gitlab-ctl stop`, a crash, a reboot), so
//! before a run counts on it the service is asked and the unit brought in accord, with the service
//! left alone; and before a capture is called good, every service is asked again.

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
use crate::runs::restore::Journal;
use crate::systemd::{ActiveState, Manager, Mode, ServiceManager};
use crate::values::UnitName;
use service::Standing;

/// How long a unit may take to follow its service, with nothing to do.
const FOLLOW: Duration = Duration::from_secs(60);
/// How long what is to stay down may be up unseen.
const LOOK: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(50);
/// Options of `docker exec` and `podman exec` that have a value, by their long names.
const VALUED: [&str; 7] =
    ["user", "env", "workdir", "env-file", "detach-keys", "cidfile", "preserve-fds"];

/// `ExecStart=` of a proxy: starts the service, also one that seems to run: a stop may be under
/// way.
pub async fn start(config: Result<Config>, name: &str) -> Result<()> {
    let proxy = find(config, name)?;
    if is_adopting() {
        // What is down is never started by the way.
        return service::is(&proxy, Standing::Up).await;
    }
    service::bring(&proxy, &proxy.start, Standing::Up).await
}

/// `ExecStop=` of a proxy: stops the service, and fails while it runs, whatever its own tool says.
pub async fn stop(config: Result<Config>, name: &str) -> Result<()> {
    if is_adopting() {
        return Ok(());
    }
    let proxy = find(config, name)?;
    service::bring(&proxy, &proxy.stop, Standing::Down).await
}

/// The proxy `name`: as configured, or, where the file was broken meanwhile, as it was when the run
/// began. GitLab comes back all the same.
fn find(config: Result<Config>, name: &str) -> Result<Proxy> {
    let proxies = match config {
        Ok(config) => config.gitlab.proxies,
        Err(error) => {
            let kept: Option<Vec<Proxy>> = read_json(Path::new(paths::PROXIES))?;
            let Some(kept) = kept else { return Err(error) };
            tracing::error!(
                "{error:#}: '{name}' is started and stopped as it was configured when the last run began"
            );
            kept
        }
    };
    let found = proxies.into_iter().find(|proxy| proxy.name == name);
    found.with_context(|| {
        format!("there is no [[gitlab.proxy]] '{name}': '{}' removes its unit", remedy::install())
    })
}

/// Asks every service, and makes the units say the same without touching any. Fails if one does not
/// tell.
pub async fn adopt(config: &Config) -> Result<()> {
    let proxies = &config.gitlab.proxies;
    write_json(Path::new(paths::PROXIES), proxies)?;
    let mut standings = Vec::new();
    for (proxy, standing) in proxies.iter().zip(ask_all(proxies).await) {
        standings.push((proxy.unit(), standing?));
    }
    durable::write(Path::new(paths::ADOPTING), 0o600, "")?;
    let adopted = follow(&Manager::connect().await?, &standings).await;
    adopted.and(adopted_end())
}

/// `ExecStopPost=` of what adopts.
pub fn adopted_end() -> Result<()> {
    own::remove(paths::ADOPTING)
}

/// Lets go of units that are about to be removed: systemd forgets them, and their services go on.
pub async fn let_go(manager: &dyn ServiceManager, units: &[UnitName]) -> Result<()> {
    if units.is_empty() {
        return Ok(());
    }
    own::make(paths::RUNTIME)?;
    durable::write(Path::new(paths::ADOPTING), 0o600, "")?;
    let standings: Vec<_> = units.iter().map(|unit| (unit.clone(), Standing::Down)).collect();
    let gone = follow(manager, &standings).await;
    gone.and(adopted_end())
}

fn is_adopting() -> bool {
    Path::new(paths::ADOPTING).exists()
}

/// Has each unit active or inactive, and waits until it is.
async fn follow(manager: &dyn ServiceManager, standings: &[(UnitName, Standing)]) -> Result<()> {
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
            let there = match standing {
                Standing::Up => state.active == ActiveState::Active,
                Standing::Down => state.active.is_down(),
            };
            if there && !state.has_job() {
                break;
            }
            // A start that failed is over.
            let over = *standing == Standing::Up && state.is_settled();
            if over || since.elapsed() > FOLLOW {
                bail!(
                    "{unit} does not follow its service, which {standing}: it is {:?} (journalctl -u {unit})",
                    state.active
                );
            }
            sleep(PAUSE).await;
        }
    }
    Ok(())
}

/// Asks of all of them, each tool once.
async fn ask_all(proxies: &[Proxy]) -> Vec<Result<Standing>> {
    let answers = service::answers(&proxies.iter().collect::<Vec<_>>()).await;
    answers.into_iter().map(|answer| answer.map(|(standing, _)| standing)).collect()
}

/// Fails with everything that runs although it was stopped: then what was captured is not worth
/// keeping.
pub async fn all_down(config: &Config) -> Result<()> {
    let proxies: Vec<&Proxy> = config.gitlab.writing_proxies().collect();
    let answers = proxies.iter().zip(service::answers(&proxies).await);
    let down = answers.map(|(proxy, answer)| service::stands(proxy, answer, Standing::Down));
    let wrong: Vec<String> =
        down.filter_map(|down| down.err().map(|error| format!("{error:#}"))).collect();
    ensure!(
        wrong.is_empty(),
        "{}: it was started in the window, so nothing that came of it can be relied on",
        wrong.join("; ")
    );
    Ok(())
}

/// Stops what comes up, as long as GitLab is half restored: after a reboot its own supervisor
/// starts it.
pub async fn keep_down(config: &Config) -> Result<()> {
    let proxies: Vec<&Proxy> = config.gitlab.writing_proxies().collect();
    while let Some(why) = Journal::half_way(&RootDirectory::host()) {
        for (proxy, answer) in proxies.iter().zip(service::answers(&proxies).await) {
            // What cannot be asked has no supervisor yet.
            if matches!(answer, Ok((Standing::Up, _))) {
                tracing::error!("'{}' was started, and is stopped: {why}", proxy.name);
                if let Err(error) = service::bring(proxy, &proxy.stop, Standing::Down).await {
                    tracing::error!("{error:#}");
                }
            }
        }
        sleep(LOOK).await;
    }
    Ok(())
}

/// For check: each one's programs are there, and its status tells something.
pub async fn findings(config: &Config) -> Vec<Finding> {
    let proxies = &config.gitlab.proxies;
    let mut findings = Vec::new();
    for (proxy, standing) in proxies.iter().zip(ask_all(proxies).await) {
        let missing = [&proxy.start, &proxy.stop, &proxy.status]
            .into_iter()
            .find(|argv| !Path::new(&argv[0]).is_file());
        let what = format!("proxy {}", proxy.name);
        findings.push(match (missing, standing) {
            (Some(argv), _) => Finding::of(
                what,
                Err(anyhow!("{} is not there: correct [[gitlab.proxy]]", argv[0])),
            ),
            (None, Ok(Standing::Up)) => Finding::of(what, Ok("runs".to_owned())),
            (None, Ok(Standing::Down)) => {
                Finding::of(what, Ok("is down, and would not be started by a run".to_owned()))
            }
            (None, Err(error)) => Finding::of(what, Err(error)),
        });
    }
    for container in containers(proxies) {
        findings.extend(health_check(&container).await);
    }
    findings
}

/// What runs the container, and its name: of the commands that go into one.
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

/// The container's name among the words behind `exec`: the first that is neither an option nor an
/// option's value.
fn container(words: &[String]) -> Option<&String> {
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let takes_next = match (word.strip_prefix("--"), word.strip_prefix('-')) {
            (Some(""), _) => return words.next(),
            (Some(long), _) => VALUED.contains(&long),
            // Letters in a row: the rest behind one that has a value is its value.
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

/// Whether somebody would take a stopped GitLab for a sick one. An engine that does not tell is
/// told of by the status that it cannot give.
async fn health_check((engine, name): &(String, String)) -> Option<Finding> {
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
        "it has a health check, which finds GitLab unhealthy while it is stopped: what restarts unhealthy containers (Swarm, Kubernetes, autoheal) \
         would break into the window; give the check more time than [gitlab] max-downtime, or switch it off ({said})"
    );
    Some(Finding::warning(format!("container {name}"), words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_found_behind_every_option() {
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
