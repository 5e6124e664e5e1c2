//! Outside programs: found before they are needed, and heard when they fail.

use std::env;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::task::JoinHandle;

use crate::host::text;

/// How many lines of a failed program are worth an error message.
const LINES: usize = 6;
/// How many bytes are heard of a program that other people's data may make talk.
const HEARD: usize = 64 << 10;

/// The first executable `program` in `directories`.
pub fn find(program: &str, directories: impl IntoIterator<Item = PathBuf>) -> Option<PathBuf> {
    directories.into_iter().map(|directory| directory.join(program)).find(|path| executable(path))
}

/// Whether `path` leads to this program: to its file, or to the wrapper that has called it.
pub fn is_own(path: &Path) -> bool {
    let own = env::current_exe().ok().and_then(|own| own.canonicalize().ok());
    let called = env::args_os().next().and_then(|called| Path::new(&called).canonicalize().ok());
    path.canonicalize()
        .is_ok_and(|path| Some(&path) == own.as_ref() || Some(&path) == called.as_ref())
}

/// The directories of `PATH`.
pub fn search_path() -> Vec<PathBuf> {
    env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default()
}

fn executable(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// The last lines of `output`, for an error message: in one line, as errors are.
pub fn tail(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let lines: Vec<&str> =
        text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    match lines.is_empty() {
        true => "it said nothing".to_owned(),
        false => lines[lines.len().saturating_sub(LINES)..].join("; "),
    }
}

/// Runs it to its end; what it said on stdout, and if it failed the last lines of both.
pub fn run(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| text::cannot_run(&program, &error))?;
    ensure!(
        output.status.success(),
        "{program}, {}: {}",
        output.status,
        tail(&[output.stdout, output.stderr].concat())
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Reads `stream` to its end in the background, so that the program never blocks on a full pipe;
/// the last lines are heard.
pub fn drain(stream: Option<impl AsyncRead + Unpin + 'static + Send>) -> JoinHandle<String> {
    tokio::spawn(async move {
        match stream {
            Some(stream) => tail(&end_of(stream).await.0),
            None => tail(&[]),
        }
    })
}

/// How a program ended, and the end of what it said on stderr.
pub struct Ended {
    /// Its status.
    pub status: ExitStatus,
    /// The last of it, up to `HEARD` bytes.
    pub said: String,
    /// There was more.
    pub is_cut: bool,
}

/// Runs a program to its end that may say whatever it likes: other people's data may make it talk.
/// What it says on stdout is not wanted.
///
/// # Errors
/// If it cannot be run.
pub async fn to_its_end(command: &mut tokio::process::Command) -> Result<Ended> {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let child = child.map_err(|error| text::cannot_run(&program, &error))?;
    ended(child).await.with_context(|| format!("cannot wait for {program}"))
}

/// Waits for the end of a program that was started with its stderr piped.
///
/// # Errors
/// If it cannot be waited for.
pub async fn ended(mut child: tokio::process::Child) -> io::Result<Ended> {
    let (said, is_cut) = match child.stderr.take() {
        Some(stream) => end_of(stream).await,
        None => (Vec::new(), false),
    };
    let status = child.wait().await?;
    Ok(Ended { status, said: String::from_utf8_lossy(&said).trim().to_owned(), is_cut })
}

/// The end of a stream, and whether there was more.
async fn end_of(mut stream: impl AsyncRead + Unpin) -> (Vec<u8>, bool) {
    let (mut kept, mut is_cut, mut chunk) = (Vec::new(), false, [0; 8192]);
    while let Ok(read @ 1..) = stream.read(&mut chunk).await {
        kept.extend_from_slice(&chunk[..read]);
        if let Some(more @ 1..) = kept.len().checked_sub(HEARD) {
            kept.drain(..more);
            is_cut = true;
        }
    }
    (kept, is_cut)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn of_a_program_that_talks_for_ever_the_end_is_heard() {
        let talks = |script: &str| {
            let mut command = tokio::process::Command::new("sh");
            command.args(["-c", script]);
            command
        };
        let ended = to_its_end(&mut talks(
            "head -c 3000000 /dev/zero | tr '\\0' x >&2; echo >&2; echo at last >&2; exit 3",
        ))
        .await
        .unwrap();
        assert_eq!(
            (ended.status.code(), ended.said.len(), ended.is_cut),
            (Some(3), HEARD - 1, true)
        );
        assert!(ended.said.ends_with("x\nat last"));
        let ended = to_its_end(&mut talks("echo so >&2; yes | head -c 300000")).await.unwrap();
        assert_eq!(
            (ended.status.code(), ended.said.as_str(), ended.is_cut),
            (Some(0), "so", false)
        );
    }

    #[test]
    fn tail_keeps_the_end() {
        assert_eq!(tail(b""), "it said nothing");
        assert_eq!(tail(b"1\n2\n3\n4\n5\n\n6\n7\n"), "2; 3; 4; 5; 6; 7");
    }
}
