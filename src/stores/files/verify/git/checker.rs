//! Runs `git fsck` on one repository at a time. The repository is untrusted, so Git never reads it
//! in place: a new one is assembled from its objects and references.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::User;
use rustix::fs::FileType;

use crate::config::Config;
use crate::host::beneath::{Directory, word};
use crate::host::confined::{self, Confinement};
use crate::host::{process, text};
use crate::runs::Part;
use crate::stores::extract;
use crate::stores::files::alternates;
use crate::stores::inspection::patience;
use crate::stores::inspection::scratch::{Scratch, lend};

/// Git of GitLab's Omnibus package.
const OMNIBUS: &str = "/opt/gitlab/embedded/bin";
/// The name of the workspace in the scratch directory.
const WORKSPACE: &str = "git";
/// The name of the assembled repository in the workspace.
const REPOSITORY: &str = "repository";
/// The largest configuration file that is read, bytes. GitLab's take some hundred.
const CONFIGURATION: u64 = 1 << 20;
/// The largest `HEAD` that is read, bytes: one reference.
const HEAD: u64 = 4096;
/// How many object directories a repository may have besides its own.
const STORES: usize = 16;
/// Settings for every Git command, so that no version's defaults matter. Git starts no programs and
/// ignores caches that could be stale. The `fsck` settings are those of GitLab's own check: they
/// accept the mistakes of old clients.
const SETTINGS: [&str; 8] = [
    "core.fsmonitor=false",
    "core.hooksPath=/dev/null",
    "core.commitGraph=false",
    "core.multiPackIndex=false",
    "gc.auto=0",
    "fsck.badTimezone=ignore",
    "fsck.missingSpaceBeforeDate=ignore",
    "fsck.zeroPaddedFilemode=ignore",
];
/// The environment of Git: only the repository's configuration, no replaced objects, no downloads,
/// no prompts.
const ENVIRONMENT: [(&str, &str); 8] = [
    ("GIT_CONFIG_NOSYSTEM", "1"),
    ("GIT_CONFIG_GLOBAL", "/dev/null"),
    ("GIT_ATTR_NOSYSTEM", "1"),
    ("GIT_NO_REPLACE_OBJECTS", "1"),
    ("GIT_NO_LAZY_FETCH", "1"),
    ("GIT_TERMINAL_PROMPT", "0"),
    ("GIT_OPTIONAL_LOCKS", "0"),
    ("GIT_PAGER", "cat"),
];

/// Extracts repositories, assembles new ones from their data, and runs `git fsck` on these.
pub(in crate::stores::files) struct GitChecker<'a> {
    config: &'a Config,
    part: &'a Part,
    /// Where repositories are extracted. Only root has access.
    extracted: Directory,
    /// Where they are assembled. Git has access, as `user`.
    workspace: Directory,
    scratch: &'a Scratch,
    user: Option<&'a User>,
    program: PathBuf,
    /// The object directories of pools in the workspace, by their paths in the snapshot.
    stores: BTreeMap<PathBuf, ObjectStore>,
}

/// The object directory of a pool.
struct ObjectStore {
    /// Its path in the workspace.
    place: PathBuf,
    /// The object directories that it needs, by their paths in the snapshot.
    alternates: Vec<PathBuf>,
}

/// Finds Git on the search path, then in GitLab's Omnibus package.
///
/// # Errors
/// If Git is not installed.
pub fn program() -> Result<PathBuf> {
    let directories = [process::search_path(), vec![PathBuf::from(OMNIBUS)]].concat();
    process::find("git", directories).context("git is not installed")
}

impl<'a> GitChecker<'a> {
    /// A checker for the repositories of `part`. They are extracted into `place`, and Git runs as
    /// `user`.
    ///
    /// # Errors
    /// If Git is not installed, or a directory cannot be opened or created.
    pub fn new(
        config: &'a Config,
        part: &'a Part,
        place: &Path,
        scratch: &'a Scratch,
        user: Option<&'a User>,
    ) -> Result<Self> {
        let program = program()?;
        let workspace = Directory::open(&scratch.create_place(WORKSPACE)?)?;
        let extracted = Directory::open(place)?;
        lend(&workspace, user)?;
        let stores = BTreeMap::new();
        Ok(Self { config, part, extracted, workspace, scratch, user, program, stores })
    }

    /// Removes the workspace.
    pub fn finish(self) -> Result<()> {
        self.scratch.remove_place(WORKSPACE)
    }

    /// Extracts the repository at `path` of the part, and runs `git fsck` on it. Returns a line for
    /// the report.
    pub fn fsck(&mut self, path: &Path) -> Result<String> {
        let checked = self.extract(path).and_then(|original| {
            let (repository, bytes) = self.assemble(path, &original)?;
            self.run_fsck(&repository, bytes)
        });
        // Only one repository is extracted at a time: the disk may be too small for all of them.
        let removed =
            self.empty_extracted().and_then(|()| self.workspace.remove(OsStr::new(REPOSITORY)));
        checked.and_then(|line| removed.map(|()| line))
    }

    /// Extracts the directory `path` of the part.
    fn extract(&self, path: &Path) -> Result<Directory> {
        let (snapshot, target) = (&self.part.snapshot, self.extracted.path());
        extract::in_child(self.config, snapshot, target, &[path.to_owned()])?;
        self.extracted.below(path.strip_prefix("/").unwrap_or(path))
    }

    fn empty_extracted(&self) -> Result<()> {
        self.extracted.entries()?.iter().try_for_each(|(name, _)| self.extracted.remove(name))
    }

    /// Assembles a repository in the workspace: moves the objects and references of the extracted
    /// `original` there, writes a new configuration, and extracts the pools that it needs. Returns
    /// the repository and the bytes that Git will have to read.
    fn assemble(&mut self, path: &Path, original: &Directory) -> Result<(Directory, u64)> {
        let repository = self.workspace.make(OsStr::new(REPOSITORY), 0o700)?;
        let configuration = self.read_configuration(original)?;
        write(&repository, "config", configuration.text().as_bytes())?;
        write(&repository, "HEAD", &read_head(original)?)?;
        move_entry(original, &repository, "refs", FileType::Directory)?;
        move_entry(original, &repository, "objects", FileType::Directory)?;
        for name in ["packed-refs", "shallow"] {
            if original.look(Path::new(name))?.is_some() {
                move_entry(original, &repository, name, FileType::RegularFile)?;
            }
        }
        if configuration.reftable {
            move_entry(original, &repository, "reftable", FileType::Directory)?;
        }
        let objects = repository.below(Path::new("objects"))?;
        let alternates = self.take_alternates(&objects, &path.join("objects"))?;
        self.empty_extracted()?;
        let (stores, pool_bytes) = self.extract_pools(&path.join("objects"), alternates)?;
        if !stores.is_empty() {
            let info = objects.make_all(Path::new("info"), None)?;
            let lines: Vec<u8> = stores
                .iter()
                .flat_map(|store| [store.as_os_str().as_bytes(), b"\n"].concat())
                .collect();
            info.create(OsStr::new("alternates"), 0o640)?
                .write_all(&lines)
                .context("cannot write the repository's alternates")?;
        }
        let bytes = lend(&repository, self.user)?.saturating_add(pool_bytes);
        Ok((repository, bytes))
    }

    /// Runs `git fsck` on the assembled repository. `bytes` is its size, which sets the timeout.
    fn run_fsck(&self, repository: &Directory, bytes: u64) -> Result<String> {
        let mut git = self.git();
        git.env("GIT_DIR", repository.path());
        git.args(SETTINGS.iter().flat_map(|setting| ["-c", setting])).args([
            "fsck",
            "--no-dangling",
            "--no-progress",
        ]);
        confined::run(&mut git, "git", patience(bytes))?;
        Ok("git fsck found no errors".to_owned())
    }

    /// A Git command that is confined to the workspace.
    fn git(&self) -> Command {
        let mut command = Confinement::new(self.user, self.workspace.path()).command(&self.program);
        command
            .envs(ENVIRONMENT)
            .env("XDG_CONFIG_HOME", self.workspace.path().join("none"))
            .env("HOME", self.workspace.path().join("none"));
        command
    }

    /// Reads and removes the alternates files of `objects`, which is `path` in the snapshot.
    /// Returns the object directories that they name. Git must not follow them: a new file replaces
    /// them, which names the extracted pools.
    fn take_alternates(&self, objects: &Directory, path: &Path) -> Result<Vec<PathBuf>> {
        if objects.look(Path::new("info"))?.is_none() {
            return Ok(Vec::new());
        }
        let info = objects.below(Path::new("info"))?;
        let content = match info.look(Path::new("alternates"))? {
            Some(_) => {
                info.read(Path::new("alternates"), alternates::LONGEST).context("its alternates")?
            }
            None => Vec::new(),
        };
        for name in ["alternates", "http-alternates"] {
            info.remove(OsStr::new(name))?;
        }
        alternates::parse(path, &content, &self.part.paths)
    }

    /// Extracts the object directories `alternates`, such as the pool of a fork, and those that
    /// these need in turn. A pool that an earlier repository needed is still there. Returns their
    /// paths in the workspace, and the bytes of those that were extracted now. `own` is the object
    /// directory of the repository itself.
    fn extract_pools(
        &mut self,
        own: &Path,
        alternates: Vec<PathBuf>,
    ) -> Result<(Vec<PathBuf>, u64)> {
        let (mut pending, mut seen, mut places, mut bytes) =
            (alternates, vec![own.to_owned()], Vec::new(), 0_u64);
        while let Some(path) = pending.pop() {
            if seen.contains(&path) {
                continue;
            }
            ensure!(seen.len() <= STORES, "it has objects in more than {STORES} other places");
            seen.push(path.clone());
            if !self.stores.contains_key(&path) {
                let extracted = self.extract_pool(&path);
                self.empty_extracted()?;
                let (store, size) =
                    extracted.with_context(|| format!("its pool {}", text::path(&path)))?;
                bytes = bytes.saturating_add(size);
                self.stores.insert(path.clone(), store);
            }
            if let Some(store) = self.stores.get(&path) {
                places.push(store.place.clone());
                pending.extend(store.alternates.iter().cloned());
            }
        }
        Ok((places, bytes))
    }

    /// Extracts the object directory `path` and moves it to the workspace. Returns its bytes as
    /// well.
    fn extract_pool(&self, path: &Path) -> Result<(ObjectStore, u64)> {
        let extracted = self.extract(path)?;
        let above =
            Directory::open(extracted.path().parent().context("it has no parent directory")?)?;
        let name = OsString::from(format!("objects{}", self.stores.len()));
        above.rename(path.file_name().context("it has no name")?, &self.workspace, &name)?;
        let objects = self.workspace.below(Path::new(&name))?;
        let alternates = self.take_alternates(&objects, path)?;
        let bytes = lend(&objects, self.user)?;
        Ok((ObjectStore { place: objects.path().to_owned(), alternates }, bytes))
    }

    /// Reads the format settings of the original's configuration. Git parses the file, confined, on
    /// a copy and without following its includes.
    fn read_configuration(&self, original: &Directory) -> Result<Configuration> {
        if original.look(Path::new("config"))?.is_none() {
            return Ok(Configuration::default());
        }
        let content = original.read(Path::new("config"), CONFIGURATION)?;
        let copy = self.workspace.make(OsStr::new("theirs"), 0o700)?;
        let list = || -> Result<String> {
            write(&copy, "config", &content)?;
            lend(&copy, self.user)?;
            let mut git = self.git();
            git.args(["config", "--no-includes", "-z", "--file"])
                .arg(copy.path().join("config"))
                .arg("--list");
            confined::run(&mut git, "git config", patience(0))
        };
        let listed = list().context("its configuration cannot be read");
        self.workspace.remove(OsStr::new("theirs"))?;
        Configuration::parse(&listed?)
    }
}

/// The settings of a repository that say in which format it is.
#[derive(Debug, Default, PartialEq, Eq)]
struct Configuration {
    version: u32,
    sha256: bool,
    reftable: bool,
}

impl Configuration {
    /// Parses the output of `git config -z --list`. If a name occurs twice, the last value counts.
    fn parse(listed: &str) -> Result<Self> {
        let mut configuration = Self::default();
        for pair in listed.split('\0') {
            let (name, value) = pair.split_once('\n').unwrap_or((pair, ""));
            match (name, value) {
                ("core.repositoryformatversion", version) => {
                    configuration.version =
                        version.parse().ok().filter(|version| *version <= 1).with_context(
                            || {
                                format!(
                                    "its configuration says {name} = {}, which is not known",
                                    text::clean(version)
                                )
                            },
                        )?;
                }
                ("extensions.objectformat", "sha1") => configuration.sha256 = false,
                ("extensions.objectformat", "sha256") => configuration.sha256 = true,
                ("extensions.refstorage", "files") => configuration.reftable = false,
                ("extensions.refstorage", "reftable") => configuration.reftable = true,
                ("extensions.objectformat" | "extensions.refstorage", other) => {
                    bail!(
                        "its configuration says {name} = {}, which is not known",
                        text::clean(other)
                    );
                }
                _ => {}
            }
        }
        Ok(configuration)
    }

    /// A configuration file with only these settings. The repository is always bare, because it has
    /// no working tree here.
    fn text(&self) -> String {
        let mut text = format!(
            "[core]\n\trepositoryformatversion = {}\n\tbare = true\n[extensions]\n",
            self.version
        );
        if self.sha256 {
            text.push_str("\tobjectformat = sha256\n");
        }
        if self.reftable {
            text.push_str("\trefstorage = reftable\n");
        }
        text
    }
}

/// Reads `HEAD`. Old versions of Git made it a symbolic link to a reference, which is translated.
fn read_head(original: &Directory) -> Result<Vec<u8>> {
    let name = Path::new("HEAD");
    let stat = original.look(name)?.context("it has no HEAD")?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
        return original.read(name, HEAD);
    }
    let target = original.target(name.as_os_str())?;
    ensure!(
        target.starts_with(b"refs/") && !target.contains(&b'\n'),
        "its HEAD is a symbolic link to {}",
        text::bytes(&target)
    );
    Ok([b"ref: ", &target[..], b"\n"].concat())
}

/// Moves `name` from one directory to the other. Fails if it is not of the type `kind`.
fn move_entry(from: &Directory, to: &Directory, name: &str, kind: FileType) -> Result<()> {
    let stat = from.look(Path::new(name))?.with_context(|| format!("it has no {name}"))?;
    let found = FileType::from_raw_mode(stat.st_mode);
    ensure!(found == kind, "its {name} is a {}", word(found));
    from.rename(OsStr::new(name), to, OsStr::new(name))
}

fn write(directory: &Directory, name: &str, content: &[u8]) -> Result<()> {
    let mut file = directory.create(OsStr::new(name), 0o640)?;
    file.write_all(content)
        .with_context(|| format!("cannot write {}", directory.path().join(name).display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_configuration_only_the_format_is_kept() {
        let listed = "core.repositoryformatversion\n1\0core.fsmonitor\n/tmp/x\0core.bare\0extensions.objectformat\nsha256\0include.path\n/x\0";
        let configuration = Configuration::parse(listed).unwrap();
        assert_eq!(configuration, Configuration { version: 1, sha256: true, reftable: false });
        assert_eq!(
            configuration.text(),
            "[core]\n\trepositoryformatversion = 1\n\tbare = true\n[extensions]\n\tobjectformat = \
             sha256\n"
        );
        for unknown in [
            "core.repositoryformatversion\n2\0",
            "extensions.objectformat\nx]\n[core]\n\tfsmonitor = y\0",
            "extensions.refstorage\n\0",
        ] {
            assert!(Configuration::parse(unknown).is_err(), "{unknown:?}");
        }
    }
}
