//! The built-in engine: a restic-format repository below a local directory, written by the
//! `rustic_core` library.
//!
//! What the library is known to get wrong is contained here: it returns success although files
//! could not be read ([`source`] and [`net`] record each), it knows no locks ([`Builtin::lock`]),
//! and its packs grow until a restore of them needs gigabytes ([`PACK_SIZE`]).

mod extract;
mod ignored;
mod laid_out;
mod links;
mod names;
mod node;
mod source;

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustic_backend::BackendOptions;
use rustic_core::repofile::{MasterKey, SnapshotFile};
use rustic_core::{
    BackupOptions, CheckOptions, ConfigOptions, Credentials, KeyOptions, LsOptions, OpenStatus,
    ParentOptions, ProgressBars, ProgressType, PruneOptions, RepairIndexOptions, Repository,
    RepositoryOptions, RusticError, RusticProgress, SnapshotOptions,
};
use rustix::fs::FlockOperation;

use crate::host::{self, own};

use super::{
    Engine, Key, PART_TAG, Progress, RUN_TAG, Reader, Snapshot, StoreRequest, Stored, TAG,
    Tolerance, local, patience,
};
use links::Links;
use source::{Skips, Source};

/// Bytes of a pack file, never growing: the library's restore holds a pack for each of its threads
/// in memory.
const PACK_SIZE: u64 = 8 << 20;
/// What a killed process left half written is removed when it is older than this.
const LEFTOVER_AGE: Duration = Duration::from_secs(24 * 3600);
const LOCK_PAUSE: Duration = Duration::from_millis(50);
/// How often progress is told.
const TICK: Duration = Duration::from_millis(250);

pub(super) struct Builtin {
    location: PathBuf,
    password_file: PathBuf,
    /// Where the key is kept between processes.
    key_file: Option<PathBuf>,
    /// Deriving it from the password takes half a second: once is enough.
    key: OnceLock<MasterKey>,
}

impl Builtin {
    pub(super) fn new(location: &str, password_file: &Path, key_file: Option<&Path>) -> Self {
        let (location, password_file) = (PathBuf::from(location), password_file.to_owned());
        Self {
            location,
            password_file,
            key_file: key_file.map(Path::to_owned),
            key: OnceLock::new(),
        }
    }

    fn repository(&self, bars: impl ProgressBars) -> Result<Repository<()>> {
        let location = self.location.to_str().context("the repository's path is not UTF-8")?;
        let backends = BackendOptions::default()
            .repository(location.to_owned())
            .to_backends()
            .map_err(plain)?;
        Repository::new_with_progress(&RepositoryOptions::default().no_cache(true), &backends, bars)
            .map_err(plain)
    }

    fn password(&self) -> Result<Credentials> {
        read_password(&self.password_file).map(Credentials::password)
    }

    fn open(&self, bars: impl ProgressBars + Clone) -> Result<Repository<OpenStatus>> {
        let location = self.location.display();
        ensure!(local::is_there(&self.location)?, "there is no repository at {location}");
        if let Some(key) = self.key.get().cloned().or_else(|| self.kept()) {
            // A key that does not fit is another repository's: then the password decides.
            if let Ok(repository) =
                self.repository(bars.clone())?.open(&Credentials::Masterkey(key.clone()))
            {
                let _ = self.key.set(key);
                return Ok(repository);
            }
        }
        let repository = self.open_by_password(bars)?;
        self.keep(repository.key());
        Ok(repository)
    }

    /// Only so opened does the repository know which of its keys it was opened with.
    fn open_by_password(&self, bars: impl ProgressBars + Clone) -> Result<Repository<OpenStatus>> {
        let opened = self.repository(bars.clone())?.open(&self.password()?);
        // Ours once took the blanks for a part of it.
        let opened = match (opened, own::read_text(&self.password_file)) {
            (Err(error), Ok(text)) if text.trim() != text.trim_end_matches(['\r', '\n']) => {
                let whole = Credentials::password(text.trim_end_matches(['\r', '\n']));
                let opened = self.repository(bars)?.open(&whole).map_err(|_| error);
                if opened.is_ok() {
                    let file = self.password_file.display();
                    tracing::warn!(
                        "the blanks around the password in {file} are a part of it, and restic does not read them: 'gitlab-backup key rotate'"
                    );
                }
                opened
            }
            (opened, _) => opened,
        };
        opened.map_err(|error| {
            let (location, password) = (self.location.display(), self.password_file.display());
            match error.is_incorrect_password() {
                true => anyhow!("cannot open the repository at {location}: the password in {password} is not its own"),
                false => plain(error).context(format!("cannot open the repository at {location}")),
            }
        })
    }

    fn kept(&self) -> Option<MasterKey> {
        serde_json::from_slice(&own::read(self.key_file.as_ref()?).ok()?).ok()
    }

    /// Not being able to keep it costs time and nothing else.
    fn keep(&self, key: MasterKey) {
        let write = || -> Result<()> {
            let Some(path) = &self.key_file else { return Ok(()) };
            own::replace(path, 0o600, false, |file| {
                serde_json::to_writer(file, &key).map_err(Into::into)
            })
        };
        if let Err(error) = write() {
            tracing::debug!("cannot keep the repository's key: {error:#}");
        }
        let _ = self.key.set(key);
    }

    /// Held by whoever changes the repository: the library itself takes no locks. Ends with the
    /// process, however that ends.
    fn lock(&self, patience: Duration) -> Result<File> {
        let config = own::open(&self.location.join("config"))
            .context("cannot open the repository's config")?;
        let started = Instant::now();
        let mut told = false;
        while let Err(error) = rustix::fs::flock(&config, FlockOperation::NonBlockingLockExclusive)
        {
            if error != rustix::io::Errno::WOULDBLOCK || started.elapsed() >= patience {
                let location = self.location.display();
                return Err(error).with_context(|| {
                    format!(
                        "another process of gitlab-backup works in the repository at {location}"
                    )
                });
            }
            if !told && started.elapsed() > Duration::from_secs(1) {
                tracing::info!("waiting: another process of gitlab-backup works in the repository");
                told = true;
            }
            std::thread::sleep(LOCK_PAUSE);
        }
        Ok(config)
    }
}

/// Bytes of a password: half of what systemd takes as a unit's credentials, systemd.exec(5)
/// `LoadCredential=`.
const PASSWORD_MAX: usize = 512 * 1024;

/// As restic reads it: without white space at both ends. What it takes for another encoding is
/// refused.
pub(super) fn read_password(path: &Path) -> Result<String> {
    let text = own::read(path).with_context(|| {
        format!("cannot read the repository's password from {}: put your copy back", path.display())
    })?;
    let text = String::from_utf8(text).ok().filter(|text| !text.starts_with('\u{feff}'));
    let text = text.with_context(|| {
        format!("{} is not plain UTF-8: restic would read another password", path.display())
    })?;
    let password = text.trim();
    ensure!(
        !password.is_empty(),
        "{} is empty: it must hold the repository's password",
        path.display()
    );
    ensure!(
        password.len() <= PASSWORD_MAX,
        "{} has {} bytes, more than systemd gives a unit: {PASSWORD_MAX} at most",
        path.display(),
        password.len()
    );
    Ok(password.to_owned())
}

/// The library's errors in one line: its own text is a page for people at a terminal.
#[expect(clippy::boxed_local, reason = "the library's results hold it so")]
fn plain(error: Box<RusticError>) -> anyhow::Error {
    anyhow!("{}", error.display_log().split_whitespace().collect::<Vec<_>>().join(" "))
}

/// What is read into memory of a repository that others can write too.
struct Bounded(Vec<u8>);

/// A manifest has some hundred bytes for each part, and for each path that was left out.
const MOST: usize = 256 << 20;

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len().saturating_add(bytes.len()) > MOST {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                "it is larger than 256 MiB: this is no file of ours",
            ));
        }
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Engine for Builtin {
    fn is_there(&self) -> Result<bool> {
        local::is_there(&self.location)
    }

    fn ensure_vacant(&self) -> Result<()> {
        local::ensure_vacant(&self.location)
    }

    fn init(&self) -> Result<bool> {
        if self.is_there()? {
            self.probe()?;
            return Ok(false);
        }
        self.ensure_vacant()?;
        let location = self.location.display();
        own::make_closed(&self.location)?;
        let size = Some(bytesize::ByteSize(PACK_SIZE));
        let options = ConfigOptions::default()
            .set_datapack_size(size)
            .set_datapack_size_limit(size)
            .set_datapack_growfactor(0_u32);
        let options = options.set_treepack_size_limit(size).set_treepack_growfactor(0_u32);
        let made = self
            .repository(Hidden)?
            .init(&self.password()?, &key_options(), &options)
            .map_err(plain);
        let repository = made.with_context(|| format!("cannot make a repository at {location}"))?;
        self.keep(repository.key());
        Ok(true)
    }

    fn probe(&self) -> Result<()> {
        self.open(Hidden).map(drop)
    }

    fn turn(&self, patience: Duration) -> Result<()> {
        self.lock(patience).map(drop)
    }

    fn recover(&self) -> Result<()> {
        let repository = self.open(Hidden)?;
        let _lock = self.lock(patience::LONG)?;
        // Packs that were written but not listed in an index are taken up again.
        repository.repair_index(&RepairIndexOptions::default(), false).map_err(plain)?;
        remove_leftovers(&self.location, SystemTime::now() - LEFTOVER_AGE)
    }

    fn store(&self, request: StoreRequest<'_>, progress: &dyn Progress) -> Result<Stored> {
        let net = ignored::spread()?;
        let read = Arc::new(AtomicU64::new(0));
        let repository = self.open(Bars(Arc::clone(&read)))?;
        let _lock = self.lock(request.patience)?;
        let repository = repository.to_indexed_ids().map_err(plain)?;
        let mut options = SnapshotOptions::default()
            .host(request.host.to_owned())
            .command("gitlab-backup".to_owned());
        for tag in [
            TAG.to_owned(),
            format!("{RUN_TAG}{}", request.run),
            format!("{PART_TAG}{}", request.part),
        ] {
            options = options.add_tags(&tag).map_err(plain)?;
        }
        let mut snapshot = options.to_snapshot().map_err(plain)?;
        snapshot.program_version = concat!("gitlab-backup ", env!("CARGO_PKG_VERSION")).to_owned();

        let skips = Skips::default();
        let paths = request.files.paths();
        let source = Source::new(request.files, skips.clone())?;
        // The library's name for it says the opposite of what it does: so, and only so, another
        // file under the same name is noticed.
        let parent = ParentOptions::default().ignore_inode(true).parents(self::parents(
            &repository,
            request.host,
            request.parents,
        )?);
        let parent = if parent.parents.is_empty() { parent.force(true) } else { parent };
        // The size would cost a second walk.
        let archive = BackupOptions::default().no_scan(true).parent_opts(parent);
        let done = AtomicBool::new(false);
        let saved = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    progress.bytes(read.load(Ordering::Relaxed));
                    std::thread::park_timeout(TICK);
                }
            });
            let saved = repository.archive(&archive, &source, snapshot, &paths);
            done.store(true, Ordering::Relaxed);
            saved
        });
        let mut skipped = skips.take();
        // The library logs what the source has told already: only what it says alone is news.
        let ignored = net.draw();
        if skipped.is_empty() {
            skipped = ignored;
        }
        let saved = saved.map_err(plain).with_context(|| match skipped.first() {
            Some(first) => format!("cannot store part '{}': {first}", request.part),
            None => format!("cannot store part '{}' in {}", request.part, self.location.display()),
        })?;
        if request.tolerance == Tolerance::None && !skipped.is_empty() {
            repository.delete_snapshots(&[saved.id]).map_err(plain)?;
            let first: Vec<String> = skipped.iter().take(3).map(ToString::to_string).collect();
            bail!(
                "part '{}': {} paths could not be read: {}",
                request.part,
                skipped.len(),
                first.join(", ")
            );
        }
        let summary = saved.summary.as_ref().context("the snapshot has no summary")?;
        progress.bytes(summary.total_bytes_processed);
        Ok(Stored {
            snapshot: hex(&saved.id),
            tree: hex(&saved.tree),
            files: summary.total_files_processed,
            bytes: summary.total_bytes_processed,
            bytes_added: summary.data_added_packed,
            skipped,
            left_out: source.left_out().to_vec(),
        })
    }

    fn snapshots(&self) -> Result<Vec<Snapshot>> {
        let all = self.open(Hidden)?.get_all_snapshots().map_err(plain)?;
        Ok(all.iter().filter_map(ours).collect())
    }

    fn extract(&self, snapshot: &str, target: &Path, paths: &[PathBuf]) -> Result<()> {
        let repository = self.open(Hidden)?.to_indexed().map_err(plain)?;
        extract::extract(&repository, snapshot, target, paths)
    }

    fn list(&self, snapshot: &str, each: &mut dyn FnMut(&Path, Option<u64>)) -> Result<()> {
        let repository = self.open(Hidden)?.to_indexed().map_err(plain)?;
        let root = repository.node_from_snapshot_path(snapshot, |_| true).map_err(plain)?;
        for entry in names::checked(repository.ls(&root, &LsOptions::default()).map_err(plain)?, 0)
        {
            let (path, node) = entry.map_err(plain)?;
            each(&Path::new("/").join(path), (!node.is_dir()).then_some(node.meta.size));
        }
        Ok(())
    }

    fn confused(&self, snapshot: &str) -> Result<Option<u64>> {
        let repository = self.open(Hidden)?.to_indexed().map_err(plain)?;
        let root = repository.node_from_snapshot_path(snapshot, |_| true).map_err(plain)?;
        let entries =
            names::checked(repository.ls(&root, &LsOptions::default()).map_err(plain)?, 0);
        Links::default().confused(entries).map(Some).map_err(plain)
    }

    fn check(&self, data: bool) -> Result<()> {
        let found =
            self.open(Hidden)?.check(CheckOptions::default().read_data(data)).map_err(plain)?;
        let all: Vec<String> = found.0.iter().map(|(_, finding)| finding.to_string()).collect();
        // Warnings alone are no damage.
        ensure!(found.is_ok().is_ok(), "the repository is damaged: {}", all.join("; "));
        Ok(())
    }

    fn reader(&self) -> Result<Reader<'_>> {
        // Once for all that is read: a large index takes seconds.
        let repository = self.open(Hidden)?.to_indexed().map_err(plain)?;
        let read = move |snapshot: &str, path: &Path| {
            let node = repository
                .node_from_snapshot_path(&format!("{snapshot}:{}", path.display()), |_| true)
                .map_err(plain)?;
            let mut content = Bounded(Vec::new());
            repository.dump(&node, &mut content).map_err(plain)?;
            anyhow::Ok(content.0)
        };
        Ok(Box::new(move |snapshot, path| {
            read(snapshot, path)
                .with_context(|| format!("cannot read {} from snapshot {snapshot}", path.display()))
        }))
    }

    fn forget(&self, snapshots: &[String], patience: Duration) -> Result<()> {
        let repository = self.open(Hidden)?;
        let _lock = self.lock(patience)?;
        let found = repository.get_snapshots(snapshots).map_err(plain)?;
        let ids: Vec<_> = found.iter().map(|snapshot| snapshot.id).collect();
        repository.delete_snapshots(&ids).map_err(plain)
    }

    fn keys(&self) -> Result<Vec<Key>> {
        let current = self.open_by_password(Hidden)?.key_id().map(|id| hex(&id));
        let mut keys = Vec::new();
        let directory = self.location.join("keys");
        for entry in own::entries(&directory)
            .with_context(|| format!("cannot read {}", directory.display()))?
        {
            let entry = entry?;
            let id = entry.file_name().to_string_lossy().into_owned();
            let text = own::read(entry.path())
                .with_context(|| format!("cannot read {}", entry.path().display()))?;
            // Who made it is not encrypted; the library does not tell it.
            let said: serde_json::Value =
                serde_json::from_slice(&text).with_context(|| format!("key {id} is damaged"))?;
            let word = |name: &str| said[name].as_str().unwrap_or_default().to_owned();
            keys.push(Key {
                current: current.as_ref() == Some(&id),
                user: word("username"),
                host: word("hostname"),
                created: word("created"),
                id,
            });
        }
        keys.sort_by(|a, b| (&a.created, &a.id).cmp(&(&b.created, &b.id)));
        Ok(keys)
    }

    fn add_key(&self, password_file: &Path) -> Result<()> {
        let repository = self.open(Hidden)?;
        let _lock = self.lock(patience::SHORT)?;
        repository.add_key(&read_password(password_file)?, &key_options()).map_err(plain).map(drop)
    }

    fn remove_key(&self, id: &str) -> Result<()> {
        let repository = self.open_by_password(Hidden)?;
        let _lock = self.lock(patience::SHORT)?;
        let id: rustic_core::Id = id.parse().map_err(plain)?;
        repository.delete_key(&id.into()).map_err(plain)
    }

    fn prune(&self, patience: Duration) -> Result<()> {
        let repository = self.open(Hidden)?;
        let _lock = self.lock(patience)?;
        // Two-phase, as by default: a pack is marked today and removed tomorrow, so that what a
        // reader has in hand stays.
        let options = PruneOptions::default();
        let plan = repository
            .prune_plan(&options)
            .map_err(plain)
            .context("cannot find out what to prune")?;
        repository.prune(&options, plan).map_err(plain).context("cannot prune")
    }
}

/// An id in full: its own text is its beginning only.
fn hex(id: &rustic_core::Id) -> String {
    id.to_hex().as_str().to_owned()
}

/// What a key says of itself, as restic's do.
fn key_options() -> KeyOptions {
    KeyOptions::default()
        .hostname(host::name())
        .username("gitlab-backup".to_owned())
        .with_created(true)
}

/// The snapshot, if its tags say that it is of ours.
fn ours(snapshot: &SnapshotFile) -> Option<Snapshot> {
    let tagged = |prefix: &str| {
        snapshot.tags.iter().find_map(|tag| tag.strip_prefix(prefix).map(str::to_owned))
    };
    if !snapshot.tags.contains(TAG) {
        return None;
    }
    let nanoseconds = snapshot.time.timestamp().as_nanosecond();
    Some(Snapshot {
        id: hex(&snapshot.id),
        tree: hex(&snapshot.tree),
        // The library's time type is another version's.
        time: jiff::Timestamp::from_nanosecond(nanoseconds).ok()?,
        host: snapshot.hostname.clone(),
        run: tagged(RUN_TAG)?.parse().ok()?,
        part: tagged(PART_TAG)?,
    })
}

/// The newest snapshot of each of these parts.
fn parents(
    repository: &Repository<impl rustic_core::Open>,
    host: &str,
    parts: &[&str],
) -> Result<Vec<String>> {
    let all = repository.get_all_snapshots().map_err(plain)?;
    let mine: Vec<Snapshot> =
        all.iter().filter_map(ours).filter(|snapshot| snapshot.host == host).collect();
    let newest = |part: &&str| {
        mine.iter().filter(|snapshot| snapshot.part == **part).max_by_key(|snapshot| snapshot.time)
    };
    Ok(parts.iter().filter_map(newest).map(|snapshot| snapshot.id.clone()).collect())
}

/// Removes the library's temporary files that are older than `before`; nobody else does.
fn remove_leftovers(directory: &Path, before: SystemTime) -> Result<()> {
    for entry in
        own::entries(directory).with_context(|| format!("cannot read {}", directory.display()))?
    {
        let entry = entry?;
        let path = entry.path();
        let metadata = entry.metadata()?;
        if metadata.is_dir() {
            remove_leftovers(&path, before)?;
        } else if entry.file_name().to_string_lossy().contains("-tmp-")
            && metadata.modified()? < before
        {
            own::remove(&path)?;
            tracing::info!(path = %path.display(), "removed what a killed process left half written");
        }
    }
    Ok(())
}

/// No progress is shown.
#[derive(Debug, Clone)]
struct Hidden;

impl ProgressBars for Hidden {
    fn progress(&self, _: ProgressType, _: &str) -> rustic_core::Progress {
        rustic_core::Progress::hidden()
    }
}

/// Counts the bytes of a store.
#[derive(Debug, Clone)]
struct Bars(Arc<AtomicU64>);

impl ProgressBars for Bars {
    fn progress(&self, kind: ProgressType, _: &str) -> rustic_core::Progress {
        match kind {
            ProgressType::Bytes => rustic_core::Progress::new(Count(Arc::clone(&self.0))),
            ProgressType::Spinner | ProgressType::Counter => rustic_core::Progress::hidden(),
        }
    }
}

#[derive(Debug)]
struct Count(Arc<AtomicU64>);

impl RusticProgress for Count {
    fn is_hidden(&self) -> bool {
        false
    }
    fn set_length(&self, _: u64) {}
    fn set_title(&self, _: &str) {}
    fn inc(&self, bytes: u64) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }
    fn finish(&self) {}
}
