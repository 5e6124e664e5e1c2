//! A confined program from its start to its end, which it is brought to in time, with all that it
//! has started.

use std::io::Read;
use std::process::{Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use crate::host::process;

/// Bytes of an answer that are worth holding.
const ANSWER: usize = 64 << 20;
/// Bytes of what it says of its failure.
const WORDS: usize = 64 << 10;
const PAUSE: Duration = Duration::from_millis(10);
/// How long the rest of what an ended program said may take to be read.
const REST: Duration = Duration::from_secs(10);

/// Runs it to its end, or for `limit`; what it said on stdout, and if it failed its last words.
///
/// # Errors
/// If it fails, takes longer, or says more than can be of use.
pub fn run(command: &mut Command, what: &str, limit: Duration) -> Result<String> {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {what}"))?;
    let answer = keep(child.stdout.take(), ANSWER);
    let words = keep(child.stderr.take(), WORDS);
    let (pid, started) = (Pid::from_child(&child), Instant::now());
    let ended = || {
        waitid(
            WaitId::Pid(pid),
            WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG,
        )
    };
    let mut in_time = true;
    while in_time && matches!(ended(), Ok(None)) {
        thread::sleep(PAUSE);
        in_time = started.elapsed() < limit;
    }
    // It leads a group of its own, and its number is nobody else's before it is waited for. One
    // that did not get so far is killed alone.
    if kill_process_group(pid, Signal::KILL).is_err() {
        let _ = child.kill();
    }
    let status = child.wait().with_context(|| format!("cannot wait for {what}"))?;
    let (answer, words) = (joined(answer), joined(words).unwrap_or_default());
    if !in_time {
        bail!("{what} was at work for {limit:?} and was ended: {}", process::tail(&words.kept));
    }
    let answer = answer
        .with_context(|| format!("{what} has left something behind that holds its output"))?;
    ensure!(status.success(), "{what}: {}", process::tail(&[answer.kept, words.kept].concat()));
    ensure!(!answer.cut, "{what} says more than {ANSWER} bytes");
    Ok(String::from_utf8_lossy(&answer.kept).into_owned())
}

/// The end of what was read.
#[derive(Default)]
struct Kept {
    kept: Vec<u8>,
    cut: bool,
}

/// Reads to the end, so that the program never waits for us, and keeps the last bytes.
fn keep(stream: Option<impl Read + Send + 'static>, most: usize) -> JoinHandle<Kept> {
    thread::spawn(move || {
        let mut kept = Kept::default();
        let Some(mut stream) = stream else { return kept };
        let mut buffer = [0; 1 << 16];
        while let Ok(read @ 1..) = stream.read(&mut buffer) {
            kept.kept.extend_from_slice(&buffer[..read]);
            if kept.kept.len() > 2 * most {
                kept.kept.drain(..kept.kept.len() - most);
                kept.cut = true;
            }
        }
        kept
    })
}

/// What was kept, if nothing that got away from its group holds the other end open.
fn joined(thread: JoinHandle<Kept>) -> Option<Kept> {
    let began = Instant::now();
    while !thread.is_finished() && began.elapsed() < REST {
        thread::sleep(PAUSE);
    }
    if thread.is_finished() { thread.join().ok() } else { None }
}
