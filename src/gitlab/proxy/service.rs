//! The service behind a proxy. Only its status command decides whether it is up.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures_util::future::join_all;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout_at};

use crate::config::Proxy;
use crate::host::process::tail;

/// How long a status command may take.
const STATUS_TIMEOUT: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(100);
/// Linux Standard Base, exit status of an init script's status: the program is not running.
const NOT_RUNNING: i32 = 3;

/// Whether a service runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// The service, or any part of it, runs.
    Up,
    /// No part of the service runs.
    Down,
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Up => "runs",
            Self::Down => "is down",
        })
    }
}

/// Queries the service, and fails if its standing is another.
pub(super) async fn ensure_standing(proxy: &Proxy, wanted: Standing) -> Result<()> {
    check_standing(proxy, query(proxy).await, wanted)
}

/// Fails if `answer` is an error or another standing.
pub(super) fn check_standing(
    proxy: &Proxy,
    answer: Result<(Standing, String)>,
    wanted: Standing,
) -> Result<()> {
    let (standing, words) = answer?;
    ensure!(standing == wanted, "'{}' {standing} ({words})", proxy.name);
    Ok(())
}

/// Runs `argv`, then polls until the service has the wanted standing. How `argv` ended only appears
/// in the error.
pub(super) async fn run_until(proxy: &Proxy, argv: &[String], wanted: Standing) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(proxy.timeout);
    let ended = run(argv, deadline).await?;
    let words = loop {
        let words = match query(proxy).await {
            Ok((standing, words)) if standing == wanted => {
                tracing::info!("'{}' {wanted}: {words}", proxy.name);
                return Ok(());
            }
            Ok((standing, words)) => format!("it {standing} ({words})"),
            Err(error) => format!("{error:#}"),
        };
        if Instant::now() >= deadline {
            break words;
        }
        sleep(PAUSE).await;
    };
    let state = if wanted == Standing::Up { "up" } else { "down" };
    bail!(
        "'{}' is not {state} after {} s: {words}; {} {ended}",
        proxy.name,
        proxy.timeout,
        argv.join(" ")
    );
}

/// Runs a command, and describes how it ended. It inherits standard output: a daemon that it starts
/// could keep a pipe open for ever.
async fn run(argv: &[String], deadline: Instant) -> Result<String> {
    let mut child = command(argv)?.spawn().with_context(|| format!("cannot run {}", argv[0]))?;
    match timeout_at(deadline, child.wait()).await {
        Ok(status) => Ok(format!(
            "ended with {}",
            status.with_context(|| format!("cannot wait for {}", argv[0]))?
        )),
        Err(_) => {
            kill(&child);
            let _ = child.wait().await;
            Ok("was still at it and was killed".to_owned())
        }
    }
}

fn command(argv: &[String]) -> Result<Command> {
    let (program, arguments) = argv.split_first().context("an empty command")?;
    let mut command = Command::new(program);
    // With a process group, its child processes can be killed too.
    command.args(arguments).stdin(Stdio::null()).process_group(0).kill_on_drop(true);
    Ok(command)
}

/// Kills a command and its child processes.
fn kill(child: &Child) {
    if let Some(pid) = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) {
        let _ = kill_process_group(pid, Signal::KILL);
    }
}

/// Queries the services of `proxies`, and returns for each its standing and the output that shows
/// it. A tool that can report several services at once (sv, supervisorctl, also in a container)
/// runs once. A service that its output does not clearly report is queried again alone.
pub(super) async fn answers(proxies: &[&Proxy]) -> Vec<Result<(Standing, String)>> {
    let mut tools: BTreeMap<&[String], Vec<usize>> = BTreeMap::new();
    for (number, proxy) in proxies.iter().enumerate() {
        if let Some((tool, _)) = split_tool(&proxy.status) {
            tools.entry(tool).or_default().push(number);
        }
    }
    let at_once = tools.into_iter().filter(|(_, numbers)| numbers.len() > 1).map(
        |(tool, numbers)| async move {
            let names = numbers.iter().filter_map(|number| proxies[*number].status.last().cloned());
            let argv: Vec<String> = tool.iter().cloned().chain(names).collect();
            let text = match run_status(&argv, proxies[numbers[0]]).await {
                Ok((_, text)) => text,
                Err(_) => String::new(),
            };
            let reported = numbers.into_iter().filter_map(|number| {
                Some((number, find_report(proxies[number].status.last()?, &text)?))
            });
            reported.collect::<Vec<_>>()
        },
    );
    let reported: BTreeMap<usize, (Standing, String)> =
        join_all(at_once).await.into_iter().flatten().collect();
    let each = proxies.iter().enumerate().map(|(number, proxy)| {
        let reported = reported.get(&number).cloned();
        async move {
            match reported {
                Some(reported) => Ok(reported),
                None => query(proxy).await,
            }
        }
    });
    join_all(each).await
}

/// Splits a status command into tool and service, if the tool takes the names of several services.
fn split_tool(argv: &[String]) -> Option<(&[String], &String)> {
    let (name, tool) = argv.split_last()?;
    let [.., program, word] = tool else { return None };
    let known =
        Path::new(program).file_name().is_some_and(|name| name == "sv" || name == "supervisorctl");
    (known && word == "status").then_some((tool, name))
}

/// The line about one service in a report of several. `None` unless there is exactly one.
fn find_report(name: &str, text: &str) -> Option<(Standing, String)> {
    // 'run: NAME: (pid …' and 'NAME   RUNNING   pid …'.
    let names_it = |line: &&str| {
        let mut words = line.split_whitespace();
        let (first, second) = (words.next(), words.next());
        first == Some(name) || second.and_then(|second| second.strip_suffix(':')) == Some(name)
    };
    let mut lines = text.lines().filter(names_it);
    let (own, None) = (lines.next()?, lines.next()) else { return None };
    line(own).map(|standing| (standing, own.trim().to_owned()))
}

/// Queries one service: its standing, and the output that shows it.
async fn query(proxy: &Proxy) -> Result<(Standing, String)> {
    let argv = &proxy.status;
    let (status, text) = run_status(argv, proxy).await?;
    match standing(status.code(), &text) {
        Some(standing) => Ok((standing, tail(text.as_bytes()))),
        None if status.success() && text.trim().is_empty() => bail!(
            "the status of '{}' is not known: '{}' ended with {status} and without a word; \
             'gitlab-ctl status NAME' says nothing of a service that is disabled or not there: \
             correct [[gitlab.proxy]], and let another command's status print a word, as 'echo up'",
            proxy.name,
            argv.join(" "),
        ),
        None => bail!(
            "the status of '{}' is not known: '{}' ended with {status}: {}",
            proxy.name,
            argv.join(" "),
            tail(text.as_bytes())
        ),
    }
}

/// Runs a status command and returns its exit status and output. Errors name `proxy`.
async fn run_status(argv: &[String], proxy: &Proxy) -> Result<(ExitStatus, String)> {
    let mut command = command(argv)?;
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", argv[0]))?;
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let output = match timeout_at(Instant::now() + STATUS_TIMEOUT, child.wait_with_output()).await {
        Ok(output) => output.with_context(|| format!("cannot wait for {}", argv[0]))?,
        Err(_) => {
            pid.map(|pid| kill_process_group(pid, Signal::KILL));
            bail!(
                "the status of '{}' is not known: '{}' does not end within {STATUS_TIMEOUT:?}",
                proxy.name,
                argv.join(" ")
            );
        }
    };
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    Ok((output.status, text))
}

/// Interprets the result of a status command: by its output if that is of a known format (runit,
/// supervisord, the inspection of a container, GitLab's init script), else by its exit status as
/// for init scripts. If any part runs, the service is up. Success without output is unknown:
/// gitlab-ctl ends like that if the service is disabled or does not exist.
fn standing(code: Option<i32>, text: &str) -> Option<Standing> {
    let said: Vec<Standing> = text.lines().filter_map(line).collect();
    match (said.contains(&Standing::Up), code) {
        (true, _) => Some(Standing::Up),
        _ if text.lines().any(is_unsure) => None,
        // The exit status of sv(8) is the number of services that it could not query.
        (false, Some(0 | NOT_RUNNING)) if !said.is_empty() => Some(Standing::Down),
        (false, Some(0)) if !text.trim().is_empty() => Some(Standing::Up),
        (false, Some(NOT_RUNNING)) => Some(Standing::Down),
        _ => None,
    }
}

/// The standing that a line reports, if its format is known.
fn line(line: &str) -> Option<Standing> {
    let line = line.trim();
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[..] {
        // With "finish:", the cleanup of a stopped service still runs.
        ["run:" | "finish:", ..]
        | ["true"]
        | [_, "RUNNING" | "STARTING" | "STOPPING" | "BACKOFF", ..] => Some(Standing::Up),
        // runit is about to start it.
        ["down:", ..] if line.split(';').next().is_some_and(|own| own.contains("want up")) => {
            Some(Standing::Up)
        }
        ["down:", ..] | ["false"] | [_, "STOPPED" | "EXITED" | "FATAL", ..] => Some(Standing::Down),
        _ if line.contains("is running") || line.contains("are up and running") => {
            Some(Standing::Up)
        }
        _ => None,
    }
}

/// Whether supervisord reports the state as unknown.
fn is_unsure(line: &str) -> bool {
    line.split_whitespace().nth(1) == Some("UNKNOWN")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_of_several_services_is_split_by_name() {
        let argv = |words: &str| words.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let many = |words: &str| split_tool(&argv(words)).is_some();
        assert!(many("/opt/gitlab/embedded/bin/sv status /opt/gitlab/service/puma"));
        assert!(many("/usr/bin/docker exec gitlab supervisorctl status gitlab:puma"));
        assert!(
            !many("/usr/bin/docker exec gitlab gitlab-ctl status puma")
                && !many("/etc/init.d/gitlab status")
                && !many("sv status")
        );
        let sv = "run: /s/puma: (pid 8) 5s; run: log: (pid 7) 5s\ndown: /s/sidekiq: 3s, normally \
                  up\nfail: /s/x: unable to change to service directory";
        assert_eq!(find_report("/s/puma", sv).map(|report| report.0), Some(Standing::Up));
        assert_eq!(
            find_report("/s/sidekiq", sv),
            Some((Standing::Down, "down: /s/sidekiq: 3s, normally up".to_owned()))
        );
        // These are queried again alone.
        assert_eq!(
            (find_report("/s/x", sv), find_report("/s/pum", sv), find_report("log", sv)),
            (None, None, None)
        );
        let supervisor = "gitlab:puma    RUNNING   pid 39, uptime 0:00:05\nsidekiq  \
                          UNKNOWN\nsidekiq2   STOPPED   Not started";
        assert_eq!(
            find_report("gitlab:puma", supervisor).map(|report| report.0),
            Some(Standing::Up)
        );
        assert_eq!(find_report("sidekiq", supervisor), None);
        assert_eq!(
            find_report("sidekiq2", supervisor).map(|report| report.0),
            Some(Standing::Down)
        );
    }

    #[test]
    fn output_and_exit_status_give_the_standing() {
        let (up, down, unknown) = (Some(Standing::Up), Some(Standing::Down), None);
        for (code, text, expected) in [
            // runit
            (0, "run: puma: (pid 812) 5s; run: log: (pid 811) 5s", up),
            (0, "run: puma: (pid 812) 5s, want down, got TERM", up),
            (0, "down: puma: 3s, normally up; run: log: (pid 811) 5s", down),
            (3, "down: puma: 3s, normally up", down),
            (0, "down: puma: 0s, normally up, want up", up),
            (0, "finish: puma: (pid 813) 0s", up),
            (0, "down: puma: 3s\nrun: sidekiq: (pid 9) 1s", up),
            (
                1,
                "down: puma: 3s\nfail: sidekiq: unable to change to service directory: file does \
                 not exist",
                unknown,
            ),
            (1, "fail: puma: runsv not running", unknown),
            // supervisord
            (0, "gitlab:puma    RUNNING   pid 39, uptime 0:00:05", up),
            (3, "gitlab:puma    STOPPED   Nov 25 11:00 AM", down),
            (3, "sidekiq  FATAL  Exited too quickly (process log may have details)", down),
            (3, "a STOPPED   Not started\nb RUNNING pid 1, uptime 0:00:01", up),
            (3, "sidekiq  UNKNOWN", unknown),
            (3, "a STOPPED   Not started\nb UNKNOWN", unknown),
            (3, "a UNKNOWN\nb RUNNING pid 1, uptime 0:00:01", up),
            // docker inspect --format {{.State.Running}}
            (0, "true\n", up),
            (0, "false\n", down),
            (1, "Error: No such object: gitlab", unknown),
            (1, "Cannot connect to the Docker daemon", unknown),
            // Init scripts
            (0, "", unknown),
            (0, " \n", unknown),
            (0, "up", up),
            (3, "", down),
            (3, "GitLab is not running.", down),
            (
                3,
                "The GitLab Unicorn web server with pid 33 is running.\nThe GitLab Sidekiq job \
                 dispatcher is not running.",
                up,
            ),
            (1, "", unknown),
            (4, "", unknown),
            // systemctl is-active
            (0, "active", up),
            (3, "inactive", down),
        ] {
            assert_eq!(standing(Some(code), text), expected, "{code} {text:?}");
        }
        assert_eq!(standing(None, ""), None, "killed by a signal");
    }
}
