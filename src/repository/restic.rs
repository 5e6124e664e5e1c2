//! The `restic` program. Location and password reach it by its environment, never by its arguments.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, anyhow, bail, ensure};
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
/// restic(1): the password opens nothing.
const WRONG_PASSWORD: i32 = 12;
const WRONG_PASSWORD_WORDS: &str = "wrong password or no key found";
/// What it says before "Is there a repository at the following location?", with which it ends
/// whatever went wrong. What the place itself says in the end decides: of directories and SFTP, of
/// a REST server, of S3.
const NONE: [&str; 4] =
    ["no such file or directory", "does not exist", "file does not exist", "NoSuchKey"];
const DENIED: [&str; 6] =
    ["401", "403", "Access Denied", "AccessDenied", "permission denied", "Forbidden"];
/// What it says where another restic has locked the repository: the exit code for that is 0.17's,
/// as is `--retry-lock` 0.16's.
const LOCKED_WORDS: &str = "repository is already locked";
/// Between two attempts then.
const LOCK_PAUSE: Duration = Duration::from_secs(1);

pub(super) struct Restic {
    location: String,
    password_file: PathBuf,
    /// What `environment-file` sets: credentials of a store as a rule.
    environment: Vec<(String, String)>,
}

#[derive(Deserialize)]
struct Message {
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

/// What restic says of a path, on stderr among other lines.
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
struct Entry {
    path: PathBuf,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    size: u64,
}

/// What it says of a failure, without what it says in JSON to programs, unless that is all.
fn words(said: &[u8]) -> String {
    let lines: Vec<&[u8]> = said
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.starts_with(b"{\"message_type\""))
        .collect();
    let plain = lines.join(&b'\n');
    process::tail(if plain.trim_ascii().is_empty() { said } else { &plain })
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
        // A cache would need a home; a local repository gains nothing from one.
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
            .with_context(|| format!("'restic {}' said what cannot be understood", words[0]))
    }

    fn succeed(&self, words: &[&str]) -> Result<Vec<u8>> {
        self.answered(&mut self.command(words), words[0])
    }

    fn answered(&self, command: &mut Command, word: &str) -> Result<Vec<u8>> {
        let output =
            command.output().context("cannot run restic: is the package 'restic' installed?")?;
        if output.status.success() { Ok(output.stdout) } else { Err(self.failure(word, &output)) }
    }

    fn failure(&self, word: &str, output: &Output) -> Error {
        anyhow!("'restic {word}' on {} failed: {}", self.location, words(&output.stderr))
    }

    /// Whether all that a restore could not lay out is devices, for which a unit has no right: no
    /// reason to lay out nothing.
    fn only_devices(&self, snapshot: &str, said: &[u8]) -> Result<bool> {
        let said = String::from_utf8_lossy(said);
        let failed: Vec<&str> =
            said.lines().filter_map(|line| line.strip_prefix("ignoring error for ")).collect();
        let count = said.lines().find_map(|line| {
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

    /// Everything in a snapshot.
    fn entries(&self, snapshot: &str, each: &mut dyn FnMut(Entry)) -> Result<()> {
        let said = self.succeed(&["ls", "--json", "--no-lock", snapshot])?;
        // The first line is of the snapshot. A byte that is not UTF-8 is restic's replacement for
        // it.
        for line in said.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).skip(1) {
            each(
                serde_json::from_slice(line)
                    .context("'restic ls' said what cannot be understood")?,
            );
        }
        Ok(())
    }

    /// The same, again and again while another restic has locked the repository.
    fn in_turn<T>(&self, patience: Duration, what: impl Fn() -> Result<T>) -> Result<T> {
        let started = Instant::now();
        let mut told = false;
        loop {
            match what() {
                Err(error)
                    if format!("{error:#}").contains(LOCKED_WORDS)
                        && started.elapsed() < patience =>
                {
                    if !told {
                        tracing::info!("waiting: {error:#}");
                        told = true;
                    }
                    std::thread::sleep(LOCK_PAUSE);
                    // Of processes that are gone, and of those only.
                    self.succeed(&["unlock"])?;
                }
                result => return result,
            }
        }
    }

    fn store_now(&self, request: &StoreRequest<'_>, progress: &dyn Progress) -> Result<Stored> {
        let mut list = tempfile::NamedTempFile::new().context("cannot make a temporary file")?;
        let Files::Live { paths, exclude } = &request.files else {
            bail!(
                "restic reads files where they are, and these are kept elsewhere: use engine 'builtin'"
            );
        };
        for path in *paths {
            path.symlink_metadata()
                .with_context(|| format!("{} cannot be read", path.display()))?;
            list.write_all(path.as_os_str().as_bytes())?;
            list.write_all(b"\0")?;
        }
        list.flush()?;
        let run = format!("{RUN_TAG}{}", request.run);
        let part = format!("{PART_TAG}{}", request.part);
        let mut command = self.command(&[
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
        ]);
        let excluded = excluded(paths, exclude)?;
        if let Some((file, others)) = &excluded {
            command.arg("--exclude-file").arg(file.path());
            for path in others {
                command.arg("--exclude").arg(pattern(path));
            }
        }
        command.arg("--files-from-raw").arg(list.path());
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
            let Ok(message) = serde_json::from_str::<Message>(&line?) else { continue };
            match message.message_type.as_str() {
                "status" => progress.bytes(message.bytes_done),
                "summary" => summary = Some(message),
                _ => {}
            }
        }
        let status = child.wait()?;
        let complaints = complaints.join().unwrap_or_default();
        let skipped: Vec<Skipped> = complaints
            .iter()
            .filter_map(|line| serde_json::from_str::<Complaint>(line).ok())
            .map(|complaint| Skipped { path: complaint.item, error: complaint.error.to_string() })
            .collect();
        let said = || words(complaints.join("\n").as_bytes());
        if !status.success() && status.code() != Some(INCOMPLETE) {
            bail!(
                "restic could not store part '{}' in {}: {status}: {}",
                request.part,
                self.location,
                said()
            );
        }
        let summary = summary.context("restic told no summary")?;
        let snapshot = summary.snapshot_id.context("restic made no snapshot")?;
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
            .context("restic does not find the snapshot that it just made")?;
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

    fn list(&self, words: &[&str]) -> Result<Vec<RawSnapshot>> {
        self.json(&[&["snapshots", "--json", "--no-lock", "--tag", TAG], words].concat())
    }
}

impl Engine for Restic {
    fn is_there(&self) -> Result<bool> {
        let directory = Path::new(&self.location);
        if directory.is_absolute() && !local::is_there(directory)? {
            return Ok(false);
        }
        let output = self.output(&["cat", "config", "--no-lock"])?;
        if output.status.success() {
            return Ok(true);
        }
        let words = words(&output.stderr);
        // 0.17 and newer have exit codes, older ones only words.
        let code = output.status.code();
        if code == Some(NO_REPOSITORY) || code == Some(1) && is_none(&words) {
            return Ok(false);
        }
        let hint = match () {
            () if code == Some(WRONG_PASSWORD) || words.contains(WRONG_PASSWORD_WORDS) => {
                "is the password its own?"
            }
            () if DENIED.iter().any(|denied| words.contains(denied)) => {
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
        // A repository that is there but cannot be opened must never be taken for none.
        if self.is_there()? {
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

    fn turn(&self, patience: Duration) -> Result<()> {
        // Anything that takes the lock of a reader.
        self.in_turn(patience, || self.succeed(&["cat", "config"])).map(drop)
    }

    fn recover(&self) -> Result<()> {
        // Removes the locks of processes that are gone, and only those.
        self.succeed(&["unlock"]).map(drop)
    }

    fn store(&self, request: StoreRequest<'_>, progress: &dyn Progress) -> Result<Stored> {
        self.in_turn(request.patience, || self.store_now(&request, progress))
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
        if !output.status.success() && !self.only_devices(snapshot, &output.stderr)? {
            return Err(self.failure(words[0], &output));
        }
        for path in paths {
            let laid = Path::new(target).join(path.strip_prefix("/").unwrap_or(path));
            laid.symlink_metadata()
                .with_context(|| format!("{} is not in snapshot {snapshot}", path.display()))?;
        }
        Ok(())
    }

    fn list(&self, snapshot: &str, each: &mut dyn FnMut(&Path, Option<u64>)) -> Result<()> {
        self.entries(snapshot, &mut |entry| {
            each(&entry.path, (entry.kind != "dir").then_some(entry.size))
        })
    }

    fn confused(&self, _: &str) -> Result<Option<u64>> {
        // 'restic ls' tells neither the file system's number nor what a file holds.
        Ok(None)
    }

    fn check(&self, data: bool) -> Result<()> {
        let words: &[&str] =
            if data { &["check", "--no-lock", "--read-data"] } else { &["check", "--no-lock"] };
        self.succeed(words).map(drop)
    }

    fn reader(&self) -> Result<Reader<'_>> {
        Ok(Box::new(|snapshot, path| {
            self.answered(self.command(&["dump", "--no-lock", snapshot]).arg(path), "dump")
        }))
    }

    fn forget(&self, snapshots: &[String], patience: Duration) -> Result<()> {
        let ids: Vec<&str> = snapshots.iter().map(String::as_str).collect();
        self.in_turn(patience, || self.succeed(&[&["forget"], &ids[..]].concat()))?;
        // Some versions end well although the server let them remove nothing.
        let left =
            self.list(&[])?.into_iter().filter(|snapshot| snapshots.contains(&snapshot.id)).count();
        ensure!(
            left == 0,
            "restic has removed nothing of {left} of {} snapshots in {}: the server does not let it (is it append-only?)",
            snapshots.len(),
            self.location
        );
        Ok(())
    }

    fn keys(&self) -> Result<Vec<Key>> {
        let keys: Vec<RawKey> = self.json(&["key", "list", "--json", "--no-lock"])?;
        // Only the beginning of an id is listed: it is as good as the whole.
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
        self.in_turn(patience, || self.succeed(&["prune"])).map(drop)
    }
}

/// Whether these words of restic's mean that the place can be asked, and that there is no
/// repository.
fn is_none(words: &str) -> bool {
    let said =
        words.split("Is there a repository at the following location").next().unwrap_or_default();
    !DENIED.iter().any(|denied| said.contains(denied))
        && NONE.iter().any(|none| said.trim_end_matches(['?', ';', ' ', '.']).ends_with(none))
}

/// What is to be left out, path by path: restic's own patterns are not those of gitignore(5). Most
/// stand in a file, since arguments are short; those that no line of it can hold are told apart.
fn excluded(
    paths: &[PathBuf],
    patterns: &[String],
) -> Result<Option<(tempfile::NamedTempFile, Vec<PathBuf>)>> {
    let exclude = Exclude::new(patterns)?;
    if exclude.is_empty() {
        return Ok(None);
    }
    let walk = Walk::new(&exclude).noting_what_is_excluded();
    for path in paths {
        walk.root(path, &At::itself(path), None)?;
    }
    let (others, lines): (Vec<PathBuf>, Vec<PathBuf>) =
        walk.excluded().into_iter().partition(|path| !is_a_line(path));
    let mut file = tempfile::NamedTempFile::new().context("cannot make a temporary file")?;
    let mut writer = BufWriter::new(&mut file);
    for path in lines {
        // There, restic puts the environment's variables in.
        let bytes = pattern(&path).into_vec();
        let parts: Vec<&[u8]> = bytes.split(|byte| *byte == b'$').collect();
        writer.write_all(&parts.join(&b"$$"[..]))?;
        writer.write_all(b"\n")?;
    }
    writer.flush()?;
    drop(writer);
    Ok(Some((file, others)))
}

/// Whether restic reads it from one line of a file as it is: it takes the blanks from both ends.
fn is_a_line(path: &Path) -> bool {
    let bytes = path.as_os_str().as_bytes();
    !bytes.contains(&b'\n') && path.to_str().is_some_and(|path| path.trim() == path)
}

/// A pattern that means this path and nothing else, as restic's exclude patterns are read:
/// filepath.Match of Go.
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
