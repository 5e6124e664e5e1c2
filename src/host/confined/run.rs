//! Runs a confined program with a time limit, after which it is killed with its process group.

use std::io::Read;
use std::process::{Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use crate::host::process;

/// The maximum size of the output, in bytes.
const ANSWER: usize = 64 << 20;
/// Bytes of standard error that are kept.
const WORDS: usize = 64 << 10;
const PAUSE: Duration = Duration::from_millis(10);
/// How long reading the rest of the output may take after the program has ended.
const REST: Duration = Duration::from_secs(10);

/// Runs a program for `limit` at most, and returns its standard output.
///
/// # Errors
/// If it fails, with the end of its output, takes longer, or prints too much.
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
    // The program leads a process group, whose id is not reused before the wait below. If it was
    // not that far yet, it is killed alone.
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

/// The end of a stream.
#[derive(Default)]
struct Kept {
    kept: Vec<u8>,
    cut: bool,
}

/// Reads a stream in a thread, so that the program never blocks, and keeps the last bytes.
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

/// The result of [`keep`]; none if a process that has left the group still has the stream open.
fn joined(thread: JoinHandle<Kept>) -> Option<Kept> {
    let began = Instant::now();
    while !thread.is_finished() && began.elapsed() < REST {
        thread::sleep(PAUSE);
    }
    if thread.is_finished() { thread.join().ok() } else { None }
}
