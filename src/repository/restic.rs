//! The `restic` program. It gets location and password by its environment, never by its arguments.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, anyhow, bail, ensure};
use jiff::Timestamp;
use serde::Deserialize;

use crate::frozen::{At, Exclude, Skipped, Walk};
use crate::host::process;

use super::{
    Engine, Files, Key, PART_TAG, Progress, RUN_TAG, Reader, Snapshot, StoreRequest, Stored, TAG,
    Tolerance, local, patience,
};

/// restic-backup(1): some source data could not be read.
const INCOMPLETE: i32 = 3;
/// restic(1): the repository does not exist.
const NO_REPOSITORY: i32 = 10;
/// restic(1): wrong password.
const WRONG_PASSWORD: i32 = 12;
const WRONG_PASSWORD_WORDS: &str = "wrong password or no key found";
/// How the error of a backend ends if there is no repository: of directories and SFTP, a REST
/// server, S3. restic appends "Is there a repository at the following location?" to every error.
const NONE: [&str; 4] =
    ["no such file or directory", "does not exist", "file does not exist", "NoSuchKey"];
/// Words and HTTP statuses in a backend's error that mean that access is denied.
const DENIED: [&str; 6] =
    ["401", "403", "Access Denied", "AccessDenied", "permission denied", "Forbidden"];
/// What restic appends to the error of every backend, before the location.
const LOCATION_QUESTION: &str = "Is there a repository at the following location";
/// restic's error if another restic has locked the repository. The exit code for this is new in
/// 0.17, `--retry-lock` in 0.16.
const LOCKED_WORDS: &str = "repository is already locked";
/// The pause between two attempts in that case.
const LOCK_PAUSE: Duration = Duration::from_secs(1);

pub(super) struct Restic {
    location: String,
    password_file: PathBuf,
    /// The variables of `environment-file`: usually the credentials of a backend.
    environment: Vec<(String, String)>,
}

#[derive(Deserialize)]
struct ResticMessage {
    message_type: String,
    #[serde(default)]
    bytes_done: u64,
    #[serde(default)]
    total_files_processed: u64,
    #[serde(default)]
    total_bytes_processed: u64,
    #[serde(default)]
    data_added: u64,
    snapshot_id: Option<String>,
}

/// restic's JSON message about a path that it cannot read, on stderr among other lines.
#[derive(Deserialize)]
struct Complaint {
    item: PathBuf,
    error: serde_json::Value,
}

#[derive(Deserialize)]
struct RawSnapshot {
    id: String,
    tree: String,
    time: jiff::Timestamp,
    #[serde(default)]
    hostname: String,
    tags: Option<Vec<String>>,
}

/// An entry of `restic key list`.
#[derive(Deserialize)]
struct RawKey {
    current: bool,
    id: String,
    #[serde(rename = "userName")]
    user: String,
    #[serde(rename = "hostName")]
    host: String,
    created: String,
}

/// An entry of `restic ls`.
#[derive(Deserialize)]
struct ListedNode {
    path: PathBuf,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    size: u64,
}

/// The error message in restic's output, without lines of JSON unless there are no others.
fn words(output: &[u8]) -> String {
    let lines: Vec<&[u8]> = output
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.starts_with(b"{\"message_type\""))
        .collect();
    let plain = lines.join(&b'\n');
    process::tail(if plain.trim_ascii().is_empty() { output } else { &plain })
}

impl Restic {
    pub(super) fn new(
        location: &str,
        password_file: &Path,
        environment: Vec<(String, String)>,
    ) -> Self {
        Self { location: location.to_owned(), password_file: password_file.to_owned(), environment }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("restic");
        command
            .args(words)
            .envs(self.environment.iter().cloned())
            .env("RESTIC_REPOSITORY", &self.location)
            .env("RESTIC_PASSWORD_FILE", &self.password_file);
        // A cache needs a home directory, and a local repository does not benefit from one.
        command.arg("--no-cache").stdin(Stdio::null());
        command
    }

    fn output(&self, words: &[&str]) -> Result<Output> {
        self.command(words)
            .output()
            .context("cannot run restic: is the package 'restic' installed?")
    }

    fn json<T: for<'de> Deserialize<'de>>(&self, words: &[&str]) -> Result<T> {
        let output = self.succeed(words)?;
        serde_json::from_slice(&output)
            .with_context(|| format!("cannot parse the output of 'restic {}'", words[0]))
    }

    /// Runs restic with these arguments and returns its stdout.
    fn succeed(&self, words: &[&str]) -> Result<Vec<u8>> {
        self.run(&mut self.command(words), words[0])
    }

    fn run(&self, command: &mut Command, word: &str) -> Result<Vec<u8>> {
        let output =
            command.output().context("cannot run restic: is the package 'restic' installed?")?;
        if output.status.success() { Ok(output.stdout) } else { Err(self.failure(word, &output)) }
    }

    fn failure(&self, word: &str, output: &Output) -> Error {
        anyhow!("'restic {word}' on {} failed: {}", self.location, words(&output.stderr))
    }

    /// Whether a restore has failed only because it could not create devices, for which a unit
    /// lacks the capability. Warns about each in that case.
    fn only_devices_failed(&self, snapshot: &str, output: &[u8]) -> Result<bool> {
        let output = String::from_utf8_lossy(output);
        let failed: Vec<&str> =
            output.lines().filter_map(|line| line.strip_prefix("ignoring error for ")).collect();
        let count = output.lines().find_map(|line| {
            line.strip_prefix("Fatal: There were ")?.strip_suffix(" errors")?.parse().ok()
        });
        if failed.is_empty() || count != Some(failed.len()) {
            return Ok(false);
        }
        let mut devices = Vec::new();
        self.entries(snapshot, &mut |entry| {
            if matches!(entry.kind.as_str(), "dev" | "chardev") {
                devices.push(format!("{}: ", entry.path.display()));
            }
        })?;
        let only = failed
            .iter()
            .all(|line| devices.iter().any(|device| line.starts_with(device.as_str())));
        if only {
            failed.iter().for_each(|line| {
                tracing::warn!(
                    "left out: a device, which cannot be made here ('mknod' makes it): {line}"
                )
            });
        }
        Ok(only)
    }

    /// Calls `each` with every entry of a snapshot.
    fn entries(&self, snapshot: &str, each: &mut dyn FnMut(ListedNode)) -> Result<()> {
        let output = self.succeed(&["ls", "--json", "--no-lock", snapshot])?;
        // The first line describes the snapshot. restic replaces bytes that are not UTF-8.
        for line in output.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).skip(1) {
            each(serde_json::from_slice(line).context("cannot parse the output of 'restic ls'")?);
        }
        Ok(())
    }

    /// Runs `work`, and repeats it for up to `patience` while another restic has locked the
    /// repository.
    fn retry_while_locked<T>(&self, patience: Duration, work: impl Fn() -> Result<T>) -> Result<T> {
        let started = Instant::now();
        let mut logged = false;
        loop {
            match work() {
                Err(error)
                    if format!("{error:#}").contains(LOCKED_WORDS)
                        && started.elapsed() < patience =>
                {
                    if !logged {
                        tracing::info!("waiting: {error:#}");
                        logged = true;
                    }
                    std::thread::sleep(LOCK_PAUSE);
                    // Removes only the locks of processes that no longer run.
                    self.succeed(&["unlock"])?;
                }
                result => return result,
            }
        }
    }

    /// Stores `request` without waiting for a lock.
    fn store_now(&self, request: &StoreRequest<'_>, progress: &dyn Progress) -> Result<Stored> {
        let Files::Live { paths, exclude } = &request.files else {
            bail!(
                "restic reads files where they are, and these are kept elsewhere: use engine \
                 'builtin'"
            );
        };
        let list = path_list(paths)?;
        let excluded = excluded(paths, exclude)?;
        let mut command = self.backup_command(request);
        if let Some((file, others)) = &excluded {
            command.arg("--exclude-file").arg(file.path());
            for path in others {
                command.arg("--exclude").arg(pattern(path));
            }
        }
        command.arg("--files-from-raw").arg(list.path());
        let BackupSummary { status, summary, complaints } =
            BackupSummary::run(&mut command, progress)?;
        let skipped = skipped(&complaints);
        if !status.success() && status.code() != Some(INCOMPLETE) {
            bail!(
                "restic could not store part '{}' in {}: {status}: {}",
                request.part,
                self.location,
                words(complaints.join("\n").as_bytes())
            );
        }
        let summary = summary.context("restic printed no summary")?;
        let snapshot = summary.snapshot_id.context("restic created no snapshot")?;
        if request.tolerance == Tolerance::None
            && (status.code() == Some(INCOMPLETE) || !skipped.is_empty())
        {
            self.forget(&[snapshot], patience::SHORT)?;
            let first: Vec<String> = skipped.iter().take(3).map(ToString::to_string).collect();
            bail!(
                "part '{}': {} paths could not be read: {}",
                request.part,
                skipped.len().max(1),
                first.join(", ")
            );
        }
        let stored = self
            .list(&[&snapshot])?
            .into_iter()
            .next()
            .context("restic does not find the snapshot that it has just created")?;
        Ok(Stored {
            snapshot: stored.id,
            tree: stored.tree,
            files: summary.total_files_processed,
            bytes: summary.total_bytes_processed,
            bytes_added: summary.data_added,
            skipped,
            left_out: Vec::new(),
        })
    }

    /// `restic backup` with the tags and the host of `request`, still without files.
    fn backup_command(&self, request: &StoreRequest<'_>) -> Command {
        let run = format!("{RUN_TAG}{}", request.run);
        let part = format!("{PART_TAG}{}", request.part);
        self.command(&[
            "backup",
            "--json",
            "--tag",
            TAG,
            "--tag",
            &run,
            "--tag",
            &part,
            "--host",
            request.host,
        ])
    }

    fn list(&self, words: &[&str]) -> Result<Vec<RawSnapshot>> {
        self.json(&[&["snapshots", "--json", "--no-lock", "--tag", TAG], words].concat())
    }
}

/// A `restic backup` that has ended.
struct BackupSummary {
    status: ExitStatus,
    /// What it has stored, if it got that far.
    summary: Option<ResticMessage>,
    /// The lines on its stderr.
    complaints: Vec<String>,
}

impl BackupSummary {
    /// Runs the command to its end and reports its progress.
    fn run(command: &mut Command, progress: &dyn Progress) -> Result<Self> {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot run restic: is the package 'restic' installed?")?;
        let stderr = child.stderr.take().context("restic has no stderr")?;
        let complaints = std::thread::spawn(move || {
            BufReader::new(stderr).lines().map_while(Result::ok).collect::<Vec<String>>()
        });
        let mut summary = None;
        for line in BufReader::new(child.stdout.take().context("restic has no stdout")?).lines() {
            let Ok(message) = serde_json::from_str::<ResticMessage>(&line?) else { continue };
            match message.message_type.as_str() {
                "status" => progress.bytes(message.bytes_done),
                "summary" => summary = Some(message),
                _ => {}
            }
        }
        let status = child.wait()?;
        Ok(Self { status, summary, complaints: complaints.join().unwrap_or_default() })
    }
}

/// The paths that restic complains about.
fn skipped(complaints: &[String]) -> Vec<Skipped> {
    complaints
        .iter()
        .filter_map(|line| serde_json::from_str::<Complaint>(line).ok())
        .map(|complaint| Skipped { path: complaint.item, error: complaint.error.to_string() })
        .collect()
}

/// A file for `--files-from-raw`. Fails if one of the paths does not exist.
fn path_list(paths: &[PathBuf]) -> Result<tempfile::NamedTempFile> {
    let mut list = tempfile::NamedTempFile::new().context("cannot create a temporary file")?;
    for path in paths {
        path.symlink_metadata().with_context(|| format!("{} cannot be read", path.display()))?;
        list.write_all(path.as_os_str().as_bytes())?;
        list.write_all(b"\0")?;
    }
    list.flush()?;
    Ok(list)
}

impl Engine for Restic {
    fn exists(&self) -> Result<bool> {
        let directory = Path::new(&self.location);
        if directory.is_absolute() && !local::exists(directory)? {
            return Ok(false);
        }
        let output = self.output(&["cat", "config", "--no-lock"])?;
        if output.status.success() {
            return Ok(true);
        }
        let words = words(&output.stderr);
        // 0.17 and newer have exit codes; of older ones the message decides.
        let code = output.status.code();
        if code == Some(NO_REPOSITORY) || code == Some(1) && is_none(&words) {
            return Ok(false);
        }
        let hint = match () {
            () if code == Some(WRONG_PASSWORD) || words.contains(WRONG_PASSWORD_WORDS) => {
                "is the password its own?"
            }
            () if is_denied(&words) => {
                "access is denied: are the credentials right, and may they read?"
            }
            () => "it cannot be reached",
        };
        bail!("cannot open the repository at {}: {hint} ({words})", self.location)
    }

    fn ensure_vacant(&self) -> Result<()> {
        let directory = Path::new(&self.location);
        if directory.is_absolute() { local::ensure_vacant(directory) } else { Ok(()) }
    }

    fn init(&self) -> Result<bool> {
        // A repository that exists but cannot be opened must not be treated as missing.
        if self.exists()? {
            return Ok(false);
        }
        self.ensure_vacant()?;
        let output = self.output(&["init"])?;
        ensure!(
            output.status.success(),
            "there is no repository at {} and none can be made: {}",
            self.location,
            words(&output.stderr)
        );
        Ok(true)
    }

    fn probe(&self) -> Result<()> {
        self.succeed(&["cat", "config", "--no-lock"]).map(drop)
    }

    fn wait_for_lock(&self, patience: Duration) -> Result<()> {
        // Any command that takes a reader's lock, which it cannot get while another has the
        // exclusive one.
        self.retry_while_locked(patience, || self.succeed(&["cat", "config"])).map(drop)
    }

    fn recover(&self, _: Timestamp) -> Result<()> {
        // Removes only the locks of processes that no longer run.
        self.succeed(&["unlock"]).map(drop)
    }

    fn store(&self, request: StoreRequest<'_>, progress: &dyn Progress) -> Result<Stored> {
        self.retry_while_locked(request.patience, || self.store_now(&request, progress))
    }

    fn snapshots(&self) -> Result<Vec<Snapshot>> {
        let tagged = |tags: &[String], prefix: &str| {
            tags.iter().find_map(|tag| tag.strip_prefix(prefix).map(str::to_owned))
        };
        let ours = |raw: RawSnapshot| {
            let tags = raw.tags.unwrap_or_default();
            let run = tagged(&tags, RUN_TAG)?.parse().ok()?;
            Some(Snapshot {
                id: raw.id,
                tree: raw.tree,
                time: raw.time,
                host: raw.hostname,
                run,
                part: tagged(&tags, PART_TAG)?,
            })
        };
        Ok(self.list(&[])?.into_iter().filter_map(ours).collect())
    }

    fn extract(&self, snapshot: &str, target: &Path, paths: &[PathBuf]) -> Result<()> {
        let target =
            target.to_str().with_context(|| format!("{} is not UTF-8", target.display()))?;
        let words = ["restore", "--no-lock", "--verify", "--target", target, snapshot];
        let mut command = self.command(&words);
        for path in paths {
            command.arg("--include").arg(pattern(path));
        }
        let output =
            command.output().context("cannot run restic: is the package 'restic' installed?")?;
        if !output.status.success() && !self.only_devices_failed(snapshot, &output.stderr)? {
            return Err(self.failure(words[0], &output));
        }
        for path in paths {
            let extracted = Path::new(target).join(path.strip_prefix("/").unwrap_or(path));
            extracted
                .symlink_metadata()
                .with_context(|| format!("{} is not in snapshot {snapshot}", path.display()))?;
        }
        Ok(())
    }

    fn list(&self, snapshot: &str, each: &mut dyn FnMut(&Path, Option<u64>)) -> Result<()> {
        self.entries(snapshot, &mut |entry| {
            each(&entry.path, (entry.kind != "dir").then_some(entry.size))
        })
    }

    fn count_false_links(&self, _: &str) -> Result<Option<u64>> {
        // 'restic ls' prints neither device numbers nor the content of files.
        Ok(None)
    }

    fn check(&self, data: bool) -> Result<()> {
        let words: &[&str] =
            if data { &["check", "--no-lock", "--read-data"] } else { &["check", "--no-lock"] };
        self.succeed(words).map(drop)
    }

    fn reader(&self) -> Result<Reader<'_>> {
        Ok(Box::new(|snapshot, path| {
            self.run(self.command(&["dump", "--no-lock", snapshot]).arg(path), "dump")
        }))
    }

    fn forget(&self, snapshots: &[String], patience: Duration) -> Result<()> {
        let ids: Vec<&str> = snapshots.iter().map(String::as_str).collect();
        self.retry_while_locked(patience, || self.succeed(&[&["forget"], &ids[..]].concat()))?;
        // Some versions succeed although the server has not let them remove anything.
        let left =
            self.list(&[])?.into_iter().filter(|snapshot| snapshots.contains(&snapshot.id)).count();
        ensure!(
            left == 0,
            "restic did not remove {left} of {} snapshots in {}: the server does not let it (is \
             it append-only?)",
            snapshots.len(),
            self.location
        );
        Ok(())
    }

    fn keys(&self) -> Result<Vec<Key>> {
        let keys: Vec<RawKey> = self.json(&["key", "list", "--json", "--no-lock"])?;
        // restic lists only the beginning of an ID, which identifies the key as well.
        Ok(keys
            .into_iter()
            .map(|key| Key {
                id: key.id,
                current: key.current,
                user: key.user,
                host: key.host,
                created: key.created,
            })
            .collect())
    }

    fn add_key(&self, password_file: &Path) -> Result<()> {
        let file = password_file
            .to_str()
            .with_context(|| format!("{} is not UTF-8", password_file.display()))?;
        self.succeed(&["key", "add", "--new-password-file", file]).map(drop)
    }

    fn remove_key(&self, id: &str) -> Result<()> {
        self.succeed(&["key", "remove", id]).map(drop)
    }

    fn prune(&self, patience: Duration) -> Result<()> {
        self.retry_while_locked(patience, || self.succeed(&["prune"])).map(drop)
    }
}

/// Whether this error of restic means that the location is reachable and has no repository.
fn is_none(words: &str) -> bool {
    !is_denied(words)
        && NONE
            .iter()
            .any(|none| reason(words).trim_end_matches(['?', ';', ' ', '.']).ends_with(none))
}

/// Whether this error of restic means that access is denied. Paths and URLs in it do not count, nor
/// do parts of words: a port or a path may contain the digits of a status.
fn is_denied(words: &str) -> bool {
    let is_place = |word: &&str| {
        word.contains(":/") || word.trim_start_matches(['"', '\'', '(']).starts_with('/')
    };
    let words: Vec<&str> =
        reason(words).split_whitespace().filter(|word| !is_place(word)).collect();
    let words = words.join(" ");
    DENIED.iter().any(|denied| {
        words.match_indices(denied).any(|(at, _)| {
            !words[..at].ends_with(char::is_alphanumeric)
                && !words[at + denied.len()..].starts_with(char::is_alphanumeric)
        })
    })
}

/// The error itself, without the location that restic appends.
fn reason(words: &str) -> &str {
    words.split(LOCATION_QUESTION).next().unwrap_or_default()
}

/// The paths to leave out, one by one, because restic's patterns are not those of gitignore(5).
/// Most are in a file, because the arguments of a command are limited. Paths that cannot be a line
/// of that file are returned separately.
fn excluded(
    paths: &[PathBuf],
    patterns: &[String],
) -> Result<Option<(tempfile::NamedTempFile, Vec<PathBuf>)>> {
    let exclude = Exclude::new(patterns)?;
    if exclude.is_empty() {
        return Ok(None);
    }
    let walk = Walk::new(&exclude).recording_excluded();
    for path in paths {
        walk.root(path, &At::itself(path), None)?;
    }
    let (others, lines): (Vec<PathBuf>, Vec<PathBuf>) =
        walk.excluded().into_iter().partition(|path| !is_a_line(path));
    let mut file = tempfile::NamedTempFile::new().context("cannot create a temporary file")?;
    let mut writer = BufWriter::new(&mut file);
    for path in lines {
        // restic expands environment variables in this file; `$$` is a dollar sign.
        let bytes = pattern(&path).into_vec();
        let parts: Vec<&[u8]> = bytes.split(|byte| *byte == b'$').collect();
        writer.write_all(&parts.join(&b"$$"[..]))?;
        writer.write_all(b"\n")?;
    }
    writer.flush()?;
    drop(writer);
    Ok(Some((file, others)))
}

/// Whether restic reads the path unchanged from a line of a file: it trims blanks at both ends.
fn is_a_line(path: &Path) -> bool {
    let bytes = path.as_os_str().as_bytes();
    !bytes.contains(&b'\n') && path.to_str().is_some_and(|path| path.trim() == path)
}

/// A pattern that matches only this path. restic's patterns are those of Go's filepath.Match.
fn pattern(path: &Path) -> OsString {
    let mut escaped = Vec::with_capacity(path.as_os_str().len());
    for byte in path.as_os_str().as_bytes() {
        if matches!(byte, b'\\' | b'*' | b'?' | b'[' | b']') {
            escaped.push(b'\\');
        }
        escaped.push(*byte);
    }
    OsString::from_vec(escaped)
}
