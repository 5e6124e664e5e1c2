//! One service behind a proxy: its commands are run, and its status command is believed.

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
const ANSWER: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(100);
/// Linux Standard Base, exit status of an init script's status: the program is not running.
const NOT_RUNNING: i32 = 3;

/// Whether a service runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It, or any part of it, runs.
    Up,
    /// Nothing of it does.
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

/// Fails if the service stands otherwise.
pub(super) async fn is(proxy: &Proxy, wanted: Standing) -> Result<()> {
    stands(proxy, answer(proxy).await, wanted)
}

/// Fails if the service stands otherwise by this answer, or if there is none.
pub(super) fn stands(
    proxy: &Proxy,
    answer: Result<(Standing, String)>,
    wanted: Standing,
) -> Result<()> {
    let (standing, words) = answer?;
    ensure!(standing == wanted, "'{}' {standing} ({words})", proxy.name);
    Ok(())
}

/// Runs `argv`, then asks until the service stands as wanted; what `argv` itself says of that is
/// for the journal.
pub(super) async fn bring(proxy: &Proxy, argv: &[String], wanted: Standing) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(proxy.timeout);
    let ended = run(argv, deadline).await?;
    let words = loop {
        let words = match answer(proxy).await {
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

/// How it ended, in words. Its output goes where ours does: a daemon that it starts may keep it
/// open for ever.
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
    // A group of its own, so that all of it can be ended.
    command.args(arguments).stdin(Stdio::null()).process_group(0).kill_on_drop(true);
    Ok(command)
}

/// Ends a command and what it is waiting for.
fn kill(child: &Child) {
    if let Some(pid) = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) {
        let _ = kill_process_group(pid, Signal::KILL);
    }
}

/// The answers and their words, one for each of `proxies`: tools that can tell of many services at
/// once (sv, supervisorctl, also in a container) are asked once. Unknown is not down: of what is
/// not told so, each is asked by itself.
pub(super) async fn answers(proxies: &[&Proxy]) -> Vec<Result<(Standing, String)>> {
    let mut tools: BTreeMap<&[String], Vec<usize>> = BTreeMap::new();
    for (number, proxy) in proxies.iter().enumerate() {
        if let Some((tool, _)) = of_many(&proxy.status) {
            tools.entry(tool).or_default().push(number);
        }
    }
    let at_once = tools.into_iter().filter(|(_, numbers)| numbers.len() > 1).map(
        |(tool, numbers)| async move {
            let names = numbers.iter().filter_map(|number| proxies[*number].status.last().cloned());
            let argv: Vec<String> = tool.iter().cloned().chain(names).collect();
            let text = match said(&argv, proxies[numbers[0]]).await {
                Ok((_, text)) => text,
                Err(_) => String::new(),
            };
            let told = numbers.into_iter().filter_map(|number| {
                Some((number, told_of(proxies[number].status.last()?, &text)?))
            });
            told.collect::<Vec<_>>()
        },
    );
    let told: BTreeMap<usize, (Standing, String)> =
        join_all(at_once).await.into_iter().flatten().collect();
    let each = proxies.iter().enumerate().map(|(number, proxy)| {
        let told = told.get(&number).cloned();
        async move {
            match told {
                Some(told) => Ok(told),
                None => answer(proxy).await,
            }
        }
    });
    join_all(each).await
}

/// A status command without the service's name, and the name, if it takes more than one.
fn of_many(argv: &[String]) -> Option<(&[String], &String)> {
    let (name, tool) = argv.split_last()?;
    let [.., program, word] = tool else { return None };
    let known =
        Path::new(program).file_name().is_some_and(|name| name == "sv" || name == "supervisorctl");
    (known && word == "status").then_some((tool, name))
}

/// What is said of this one service among others.
fn told_of(name: &str, text: &str) -> Option<(Standing, String)> {
    // 'run: NAME: (pid …' and 'NAME   RUNNING   pid …'.
    let is_its = |line: &&str| {
        let mut words = line.split_whitespace();
        let (first, second) = (words.next(), words.next());
        first == Some(name) || second.and_then(|second| second.strip_suffix(':')) == Some(name)
    };
    let mut lines = text.lines().filter(is_its);
    let (own, None) = (lines.next()?, lines.next()) else { return None };
    line(own).map(|standing| (standing, own.trim().to_owned()))
}

/// The answer and its words.
async fn answer(proxy: &Proxy) -> Result<(Standing, String)> {
    let argv = &proxy.status;
    let (status, text) = said(argv, proxy).await?;
    match standing(status.code(), &text) {
        Some(standing) => Ok((standing, tail(text.as_bytes()))),
        None if status.success() && text.trim().is_empty() => bail!(
            "the status of '{}' is not known: '{}' ended with {status} and without a word; 'gitlab-ctl status NAME' says nothing of a service that is \
             disabled or not there: correct [[gitlab.proxy]], and let another command's status print a word, as 'echo up'",
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

/// Runs a status command, of this proxy or of it and others.
async fn said(argv: &[String], proxy: &Proxy) -> Result<(ExitStatus, String)> {
    let mut command = command(argv)?;
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", argv[0]))?;
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let output = match timeout_at(Instant::now() + ANSWER, child.wait_with_output()).await {
        Ok(output) => output.with_context(|| format!("cannot wait for {}", argv[0]))?,
        Err(_) => {
            pid.map(|pid| kill_process_group(pid, Signal::KILL));
            bail!(
                "the status of '{}' is not known: '{}' does not end within {ANSWER:?}",
                proxy.name,
                argv.join(" ")
            );
        }
    };
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    Ok((output.status, text))
}

/// What a status command says, in the words of those that say it in words (runit, supervisord, the
/// inspection of a container, GitLab's own init script), else by its exit status, as init scripts
/// have it. Anything that runs makes it run. Success without a word is no answer: so gitlab-ctl
/// ends where there is nothing to tell of.
fn standing(code: Option<i32>, text: &str) -> Option<Standing> {
    let said: Vec<Standing> = text.lines().filter_map(line).collect();
    match (said.contains(&Standing::Up), code) {
        (true, _) => Some(Standing::Up),
        _ if text.lines().any(is_unsure) => None,
        // sv(8) counts what it could not ask.
        (false, Some(0 | NOT_RUNNING)) if !said.is_empty() => Some(Standing::Down),
        (false, Some(0)) if !text.trim().is_empty() => Some(Standing::Up),
        (false, Some(NOT_RUNNING)) => Some(Standing::Down),
        _ => None,
    }
}

/// What one line says, if it is one that does.
fn line(line: &str) -> Option<Standing> {
    let line = line.trim();
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[..] {
        // A service that has ended and is finished up is not down yet.
        ["run:" | "finish:", ..]
        | ["true"]
        | [_, "RUNNING" | "STARTING" | "STOPPING" | "BACKOFF", ..] => Some(Standing::Up),
        // runit starts it again in a moment.
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

/// Whether supervisord does not know itself.
fn is_unsure(line: &str) -> bool {
    line.split_whitespace().nth(1) == Some("UNKNOWN")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tells_of_many_is_asked_once_and_taken_apart() {
        let argv = |words: &str| words.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let many = |words: &str| of_many(&argv(words)).is_some();
        assert!(many("/opt/gitlab/embedded/bin/sv status /opt/gitlab/service/puma"));
        assert!(many("/usr/bin/docker exec gitlab supervisorctl status gitlab:puma"));
        assert!(
            !many("/usr/bin/docker exec gitlab gitlab-ctl status puma")
                && !many("/etc/init.d/gitlab status")
                && !many("sv status")
        );
        let sv = "run: /s/puma: (pid 8) 5s; run: log: (pid 7) 5s\ndown: /s/sidekiq: 3s, normally up\nfail: /s/x: unable to change to service directory";
        assert_eq!(told_of("/s/puma", sv).map(|told| told.0), Some(Standing::Up));
        assert_eq!(
            told_of("/s/sidekiq", sv),
            Some((Standing::Down, "down: /s/sidekiq: 3s, normally up".to_owned()))
        );
        // Each is asked by itself then.
        assert_eq!(
            (told_of("/s/x", sv), told_of("/s/pum", sv), told_of("log", sv)),
            (None, None, None)
        );
        let supervisor = "gitlab:puma    RUNNING   pid 39, uptime 0:00:05\nsidekiq  UNKNOWN\nsidekiq2   STOPPED   Not started";
        assert_eq!(told_of("gitlab:puma", supervisor).map(|told| told.0), Some(Standing::Up));
        assert_eq!(told_of("sidekiq", supervisor), None);
        assert_eq!(told_of("sidekiq2", supervisor).map(|told| told.0), Some(Standing::Down));
    }

    #[test]
    fn what_says_it_in_words_is_taken_at_its_word() {
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
                "down: puma: 3s\nfail: sidekiq: unable to change to service directory: file does not exist",
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
                "The GitLab Unicorn web server with pid 33 is running.\nThe GitLab Sidekiq job dispatcher is not running.",
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
