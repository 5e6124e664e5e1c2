//! Outside programs: found before they are needed, and heard when they fail.

use std::collections::VecDeque;
use std::env;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::task::JoinHandle;

/// How many lines of a failed program are worth an error message.
const LINES: usize = 6;

/// The first executable `program` in `directories`.
pub fn find(program: &str, directories: impl IntoIterator<Item = PathBuf>) -> Option<PathBuf> {
    directories.into_iter().map(|directory| directory.join(program)).find(|path| executable(path))
}

/// The directories of `PATH`.
pub fn search_path() -> Vec<PathBuf> {
    env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default()
}

fn executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// The last lines of `output`, for an error message: in one line, as errors are.
pub fn tail(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    match lines.is_empty() {
        true => "it said nothing".to_owned(),
        false => lines[lines.len().saturating_sub(LINES)..].join("; "),
    }
}

/// Runs it to its end; what it said on stdout, and if it failed the last lines of both.
pub fn run(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot run {program}: is it installed?"))?;
    ensure!(output.status.success(), "{program}, {}: {}", output.status, tail(&[output.stdout, output.stderr].concat()));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Reads `stream` to its end in the background, so that the program never blocks on a full pipe; keeps the last lines.
pub fn drain(stream: Option<impl AsyncRead + Unpin + 'static + Send>) -> JoinHandle<String> {
    tokio::spawn(async move {
        let mut kept = VecDeque::new();
        if let Some(stream) = stream {
            let mut reader = BufReader::new(stream);
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line).await.is_ok_and(|read| read > 0) {
                kept.push_back(String::from_utf8_lossy(&line).into_owned());
                if kept.len() > LINES {
                    kept.pop_front();
                }
                line.clear();
            }
        }
        tail(kept.into_iter().collect::<String>().as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tail_keeps_the_end() {
        assert_eq!(tail(b""), "it said nothing");
        assert_eq!(tail(b"1\n2\n3\n4\n5\n\n6\n7\n"), "2; 3; 4; 5; 6; 7");
    }
}
