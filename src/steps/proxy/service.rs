//! One service behind a proxy: its commands are run, and its status command is believed.

use std::fmt;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout_at};

use crate::config::Proxy;
use crate::process::tail;

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

/// Asks once. Fails if the answer cannot be understood: unknown is not down.
pub(super) async fn ask(proxy: &Proxy) -> Result<Standing> {
    answer(proxy).await.map(|(standing, _)| standing)
}

/// Fails if the service stands otherwise.
pub(super) async fn is(proxy: &Proxy, wanted: Standing) -> Result<()> {
    let (standing, words) = answer(proxy).await?;
    ensure!(standing == wanted, "'{}' {standing} ({words})", proxy.name);
    Ok(())
}

/// Runs `argv`, then asks until the service stands as wanted; what `argv` itself says of that is for the journal.
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
    bail!("'{}' is not {state} after {} s: {words}; {} {ended}", proxy.name, proxy.timeout, argv.join(" "));
}

/// How it ended, in words. Its output goes where ours does: a daemon that it starts may keep it open for ever.
async fn run(argv: &[String], deadline: Instant) -> Result<String> {
    let mut child = command(argv)?.spawn().with_context(|| format!("cannot run {}", argv[0]))?;
    match timeout_at(deadline, child.wait()).await {
        Ok(status) => Ok(format!("ended with {}", status.with_context(|| format!("cannot wait for {}", argv[0]))?)),
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

/// The answer and its words.
async fn answer(proxy: &Proxy) -> Result<(Standing, String)> {
    let argv = &proxy.status;
    let mut command = command(argv)?;
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().with_context(|| format!("cannot run {}", argv[0]))?;
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let output = match timeout_at(Instant::now() + ANSWER, child.wait_with_output()).await {
        Ok(output) => output.with_context(|| format!("cannot wait for {}", argv[0]))?,
        Err(_) => {
            pid.map(|pid| kill_process_group(pid, Signal::KILL));
            bail!("the status of '{}' is not known: '{}' does not end within {ANSWER:?}", proxy.name, argv.join(" "));
        }
    };
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    match standing(output.status.code(), &text) {
        Some(standing) => Ok((standing, tail(text.as_bytes()))),
        None if output.status.success() && text.trim().is_empty() => bail!(
            "the status of '{}' is not known: '{}' ended with {} and without a word; 'gitlab-ctl status NAME' says nothing of a service that is \
             disabled or not there: correct [[gitlab.proxy]], and let another command's status print a word, as 'echo up'",
            proxy.name,
            argv.join(" "),
            output.status
        ),
        None => bail!(
            "the status of '{}' is not known: '{}' ended with {}: {}",
            proxy.name,
            argv.join(" "),
            output.status,
            tail(text.as_bytes())
        ),
    }
}

/// What a status command says, in the words of those that say it in words (runit, supervisord, the inspection of a container, GitLab's own
/// init script), else by its exit status, as init scripts have it. Anything that runs makes it run. Success without a word is no answer: so
/// gitlab-ctl ends where there is nothing to tell of.
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
        ["run:" | "finish:", ..] | ["true"] | [_, "RUNNING" | "STARTING" | "STOPPING" | "BACKOFF", ..] => Some(Standing::Up),
        // runit starts it again in a moment.
        ["down:", ..] if line.split(';').next().is_some_and(|own| own.contains("want up")) => Some(Standing::Up),
        ["down:", ..] | ["false"] | [_, "STOPPED" | "EXITED" | "FATAL", ..] => Some(Standing::Down),
        _ if line.contains("is running") || line.contains("are up and running") => Some(Standing::Up),
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
            (1, "down: puma: 3s\nfail: sidekiq: unable to change to service directory: file does not exist", unknown),
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
            (3, "The GitLab Unicorn web server with pid 33 is running.\nThe GitLab Sidekiq job dispatcher is not running.", up),
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
