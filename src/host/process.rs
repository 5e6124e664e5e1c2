//! Runs other programs, and collects their output for errors.

use std::env;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::task::JoinHandle;

use crate::host::text;

/// Lines of a failed program's output in an error message.
const LINES: usize = 6;
/// Bytes of a program's output that are kept. Other users' data may make it print any amount.
const HEARD: usize = 64 << 10;

/// The first executable `program` in `directories`.
pub fn find(program: &str, directories: impl IntoIterator<Item = PathBuf>) -> Option<PathBuf> {
    directories.into_iter().map(|directory| directory.join(program)).find(|path| executable(path))
}

/// Whether `path` leads to this program, or to the wrapper script that has started it.
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

/// The last lines of `output`, joined to one line, for an error message.
pub fn tail(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let lines: Vec<&str> =
        text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    match lines.is_empty() {
        true => "it said nothing".to_owned(),
        false => lines[lines.len().saturating_sub(LINES)..].join("; "),
    }
}

/// Runs a command and returns its standard output. The error of a failure has the last lines of its
/// output.
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

/// Reads `stream` in the background, so that the program never blocks on a full pipe. Returns the
/// last lines.
pub fn drain(stream: Option<impl AsyncRead + Unpin + 'static + Send>) -> JoinHandle<String> {
    tokio::spawn(async move {
        match stream {
            Some(stream) => tail(&end_of(stream).await.0),
            None => tail(&[]),
        }
    })
}

/// The exit status of a program, and the end of its standard error.
pub struct Ended {
    /// The exit status.
    pub status: ExitStatus,
    /// The end of its standard error, up to `HEARD` bytes.
    pub said: String,
    /// Whether there was more output.
    pub is_cut: bool,
}

/// Runs a program whose output is not limited, because other users' data determines it. Discards
/// its standard output.
///
/// # Errors
/// If it cannot be run.
pub async fn to_its_end(command: &mut tokio::process::Command) -> Result<Ended> {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let child = child.map_err(|error| text::cannot_run(&program, &error))?;
    ended(child).await.with_context(|| format!("cannot wait for {program}"))
}

/// Waits for the end of a program whose standard error is a pipe.
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

/// Reads a stream to its end. Returns the last bytes, and whether there was more.
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
    async fn only_the_end_of_unlimited_output_is_kept() {
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
