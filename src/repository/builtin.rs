//! The built-in engine: a restic-format repository below a local directory, written by the
//! `rustic_core` library.
//!
//! The library has known defects, which this module works around: it returns success although files
//! could not be read ([`source`] and [`ignored`] record each), it takes no locks
//! ([`Builtin::lock`]), and its packs grow until a restore of them needs gigabytes ([`PACK_SIZE`]).

mod compare;
mod extract;
mod ignored;
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
use jiff::Timestamp;
use rustic_backend::BackendOptions;
use rustic_core::repofile::{MasterKey, SnapshotFile};
use rustic_core::{
    BackupOptions, CheckOptions, ConfigOptions, Credentials, KeyOptions, LsOptions, OpenStatus,
    ParentOptions, ProgressBars, ProgressType, PruneOptions, RepairIndexOptions, Repository,
    RepositoryOptions, RusticError, RusticProgress, SnapshotOptions,
};
use rustix::fs::FlockOperation;

use crate::host::{self, durable, own};

use super::{
    Engine, Key, PART_TAG, Progress, RUN_TAG, Reader, Snapshot, StoreRequest, Stored, TAG,
    Tolerance, local, patience,
};
use links::Links;
use source::{Skips, Source};

/// The size of a pack file in bytes. It never grows, because the library's restore holds one pack
/// in memory for each of its threads.
const PACK_SIZE: u64 = 8 << 20;
/// Temporary files of killed processes are removed when they are older than this.
const LEFTOVER_AGE: Duration = Duration::from_secs(24 * 3600);
const LOCK_PAUSE: Duration = Duration::from_millis(50);
/// How often progress is reported.
const TICK: Duration = Duration::from_millis(250);

pub(super) struct Builtin {
    location: PathBuf,
    password_file: PathBuf,
    /// The file that keeps the key between processes.
    key_file: Option<PathBuf>,
    /// The key. Deriving it from the password takes half a second, so it is derived once.
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
        ensure!(local::exists(&self.location)?, "there is no repository at {location}");
        if let Some(key) = self.key.get().cloned().or_else(|| self.read_key_file()) {
            // A key that does not open this repository belongs to another one. The password
            // decides.
            if let Ok(repository) =
                self.repository(bars.clone())?.open(&Credentials::Masterkey(key.clone()))
            {
                let _ = self.key.set(key);
                return Ok(repository);
            }
        }
        let repository = self.open_by_password(bars)?;
        self.remember(repository.key());
        Ok(repository)
    }

    /// Opens the repository by its password. Only then does the library know which of the keys is
    /// in use.
    fn open_by_password(&self, bars: impl ProgressBars + Clone) -> Result<Repository<OpenStatus>> {
        let opened = self.repository(bars.clone())?.open(&self.password()?);
        // Older versions of this program treated the blanks around the password as part of it.
        let opened = match (opened, own::read_text(&self.password_file)) {
            (Err(error), Ok(text)) if text.trim() != text.trim_end_matches(['\r', '\n']) => {
                let whole = Credentials::password(text.trim_end_matches(['\r', '\n']));
                let opened = self.repository(bars)?.open(&whole).map_err(|_| error);
                if opened.is_ok() {
                    let file = self.password_file.display();
                    tracing::warn!(
                        "the blanks around the password in {file} are a part of it, and restic \
                         does not read them: 'gitlab-backup key rotate'"
                    );
                }
                opened
            }
            (opened, _) => opened,
        };
        opened.map_err(|error| {
            let (location, password) = (self.location.display(), self.password_file.display());
            match error.is_incorrect_password() {
                true => anyhow!(
                    "cannot open the repository at {location}: the password in {password} is not \
                     its own"
                ),
                false => plain(error).context(format!("cannot open the repository at {location}")),
            }
        })
    }

    fn read_key_file(&self) -> Option<MasterKey> {
        serde_json::from_slice(&own::read(self.key_file.as_ref()?).ok()?).ok()
    }

    /// Remembers the key, in this process and in the key file. An error only costs time later.
    fn remember(&self, key: MasterKey) {
        let write = || -> Result<()> {
            let Some(path) = &self.key_file else { return Ok(()) };
            durable::write_until_reboot(path, 0o600, |file| {
                serde_json::to_writer(file, &key).map_err(Into::into)
            })
        };
        if let Err(error) = write() {
            tracing::debug!("cannot keep the repository's key: {error:#}");
        }
        let _ = self.key.set(key);
    }

    /// Takes the lock that every process of this program holds while it changes the repository: the
    /// library takes no locks. The lock ends with the returned file or the process.
    fn lock(&self, patience: Duration) -> Result<File> {
        let config = own::open(&self.location.join("config"))
            .context("cannot open the repository's config")?;
        let started = Instant::now();
        let mut logged = false;
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
            if !logged && started.elapsed() > Duration::from_secs(1) {
                tracing::info!("waiting: another process of gitlab-backup works in the repository");
                logged = true;
            }
            std::thread::sleep(LOCK_PAUSE);
        }
        Ok(config)
    }
}

/// The longest password in bytes: half of what systemd accepts as the credentials of a unit,
/// systemd.exec(5) `LoadCredential=`.
const PASSWORD_MAX: usize = 512 * 1024;

/// Reads a password as restic does: without white space at both ends. A file that restic would
/// decode from another encoding is refused.
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
        "{} has {} bytes, but systemd passes at most {PASSWORD_MAX} to a unit",
        path.display(),
        password.len()
    );
    Ok(password.to_owned())
}

/// Formats an error of the library in one line: its own format is a page of text for a terminal.
#[expect(clippy::boxed_local, reason = "the library's results hold it so")]
fn plain(error: Box<RusticError>) -> anyhow::Error {
    anyhow!("{}", error.display_log().split_whitespace().collect::<Vec<_>>().join(" "))
}

/// Collects a file of the repository in memory. Its size is limited, because others may be able to
/// write to the repository.
struct BoundedBackend(Vec<u8>);

/// The largest file that is read into memory, in bytes. A manifest has some hundred bytes for each
/// part and for each path that was left out.
const LARGEST_FILE: usize = 256 << 20;

impl Write for BoundedBackend {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len().saturating_add(bytes.len()) > LARGEST_FILE {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                "it is larger than 256 MiB, so it is not a file of gitlab-backup",
            ));
        }
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Engine for Builtin {
    fn exists(&self) -> Result<bool> {
        local::exists(&self.location)
    }

    fn ensure_vacant(&self) -> Result<()> {
        local::ensure_vacant(&self.location)
    }

    fn init(&self) -> Result<bool> {
        if self.exists()? {
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
        let created = self
            .repository(Hidden)?
            .init(&self.password()?, &key_options(), &options)
            .map_err(plain);
        let repository =
            created.with_context(|| format!("cannot create a repository at {location}"))?;
        self.remember(repository.key());
        Ok(true)
    }

    fn probe(&self) -> Result<()> {
        self.open(Hidden).map(drop)
    }

    fn wait_for_lock(&self, patience: Duration) -> Result<()> {
        self.lock(patience).map(drop)
    }

    fn recover(&self, now: Timestamp) -> Result<()> {
        let repository = self.open(Hidden)?;
        let _lock = self.lock(patience::LONG)?;
        // Adds packs that were written but not yet listed in an index.
        repository.repair_index(&RepairIndexOptions::default(), false).map_err(plain)?;
        remove_leftovers(&self.location, SystemTime::try_from(now)? - LEFTOVER_AGE)
    }

    fn store(&self, request: StoreRequest<'_>, progress: &dyn Progress) -> Result<Stored> {
        let ignored = ignored::collect()?;
        let read = Arc::new(AtomicU64::new(0));
        let repository = self.open(Bars(Arc::clone(&read)))?;
        let _lock = self.lock(request.patience)?;
        let repository = repository.to_indexed_ids().map_err(plain)?;
        let snapshot = new_snapshot(&request)?;
        let options = backup_options(&repository, &request)?;
        let skips = Skips::default();
        let paths = request.files.paths();
        let source = Source::new(request.files, skips.clone())?;
        let saved = with_progress(&read, progress, || {
            repository.archive(&options, &source, snapshot, &paths)
        });
        let mut skipped = skips.take();
        // The library also logs the errors that the source has recorded.
        let ignored = ignored.finish();
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
        Ok(all.iter().filter_map(by_tags).collect())
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

    fn count_false_links(&self, snapshot: &str) -> Result<Option<u64>> {
        let repository = self.open(Hidden)?.to_indexed().map_err(plain)?;
        let root = repository.node_from_snapshot_path(snapshot, |_| true).map_err(plain)?;
        let entries =
            names::checked(repository.ls(&root, &LsOptions::default()).map_err(plain)?, 0);
        Links::default().count_false_links(entries).map(Some).map_err(plain)
    }

    fn check(&self, data: bool) -> Result<()> {
        let found =
            self.open(Hidden)?.check(CheckOptions::default().read_data(data)).map_err(plain)?;
        let all: Vec<String> = found.0.iter().map(|(_, finding)| finding.to_string()).collect();
        // Warnings alone do not mean damage.
        ensure!(found.is_ok().is_ok(), "the repository is damaged: {}", all.join("; "));
        Ok(())
    }

    fn reader(&self) -> Result<Reader<'_>> {
        // The index is read once for all files, because a large one takes seconds.
        let repository = self.open(Hidden)?.to_indexed().map_err(plain)?;
        let read = move |snapshot: &str, path: &Path| {
            let node = repository
                .node_from_snapshot_path(&format!("{snapshot}:{}", path.display()), |_| true)
                .map_err(plain)?;
            let mut content = BoundedBackend(Vec::new());
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
            // The fields that say who created the key are not encrypted. The library does not
            // return them.
            let fields: serde_json::Value =
                serde_json::from_slice(&text).with_context(|| format!("key {id} is damaged"))?;
            let field = |name: &str| fields[name].as_str().unwrap_or_default().to_owned();
            keys.push(Key {
                current: current.as_ref() == Some(&id),
                user: field("username"),
                host: field("hostname"),
                created: field("created"),
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
        // By default a pack is marked in one prune and removed in a later one, a day after, so that
        // no reader loses the data it is reading.
        let options = PruneOptions::default();
        let plan =
            repository.prune_plan(&options).map_err(plain).context("cannot plan the prune")?;
        repository.prune(&options, plan).map_err(plain).context("cannot prune")
    }
}

/// A complete ID: the library's text form has only the beginning.
fn hex(id: &rustic_core::Id) -> String {
    id.to_hex().as_str().to_owned()
}

/// The fields of a new key, as restic writes them.
fn key_options() -> KeyOptions {
    KeyOptions::default()
        .hostname(host::name())
        .username("gitlab-backup".to_owned())
        .with_created(true)
}

/// The snapshot, if its tags say that this program has created it.
fn by_tags(snapshot: &SnapshotFile) -> Option<Snapshot> {
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
        // The library uses another version of this type.
        time: jiff::Timestamp::from_nanosecond(nanoseconds).ok()?,
        host: snapshot.hostname.clone(),
        run: tagged(RUN_TAG)?.parse().ok()?,
        part: tagged(PART_TAG)?,
    })
}

/// A snapshot for `request` with its tags, still without files.
fn new_snapshot(request: &StoreRequest<'_>) -> Result<SnapshotFile> {
    let mut options = SnapshotOptions::default()
        .host(request.host.to_owned())
        .command("gitlab-backup".to_owned());
    for tag in
        [TAG.to_owned(), format!("{RUN_TAG}{}", request.run), format!("{PART_TAG}{}", request.part)]
    {
        options = options.add_tags(&tag).map_err(plain)?;
    }
    let mut snapshot = options.to_snapshot().map_err(plain)?;
    snapshot.program_version = concat!("gitlab-backup ", env!("CARGO_PKG_VERSION")).to_owned();
    Ok(snapshot)
}

/// How the library stores `request`: which snapshots are its parents, and without a scan.
fn backup_options(
    repository: &Repository<impl rustic_core::Open>,
    request: &StoreRequest<'_>,
) -> Result<BackupOptions> {
    let parents = parents(repository, request.host, request.parents)?;
    // The library's name for this option says the opposite of its effect: only with `true` does it
    // notice that another file has the same name.
    let options = ParentOptions::default().ignore_inode(true).parents(parents);
    let options = if options.parents.is_empty() { options.force(true) } else { options };
    // A scan for the total size would walk all files a second time.
    Ok(BackupOptions::default().no_scan(true).parent_opts(options))
}

/// Runs `store`, and reports the bytes in `read` to `progress` meanwhile.
fn with_progress<T>(read: &AtomicU64, progress: &dyn Progress, store: impl FnOnce() -> T) -> T {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                progress.bytes(read.load(Ordering::Relaxed));
                std::thread::park_timeout(TICK);
            }
        });
        let stored = store();
        done.store(true, Ordering::Relaxed);
        stored
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
        all.iter().filter_map(by_tags).filter(|snapshot| snapshot.host == host).collect();
    let newest = |part: &&str| {
        mine.iter().filter(|snapshot| snapshot.part == **part).max_by_key(|snapshot| snapshot.time)
    };
    Ok(parts.iter().filter_map(newest).map(|snapshot| snapshot.id.clone()).collect())
}

/// Removes the library's temporary files that are older than `before`; the library does not.
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
            tracing::info!(
                path = %path.display(),
                "removed an incomplete file of a killed process"
            );
        }
    }
    Ok(())
}

/// Ignores progress.
#[derive(Debug, Clone)]
struct Hidden;

impl ProgressBars for Hidden {
    fn progress(&self, _: ProgressType, _: &str) -> rustic_core::Progress {
        rustic_core::Progress::hidden()
    }
}

/// Counts the bytes that a store reads.
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
