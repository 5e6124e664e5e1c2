//! One repository at a time, put together anew for Git to read.

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
/// The place in the scratch directory.
const DESK: &str = "git";
const REPOSITORY: &str = "repository";
/// Bytes of a configuration file: GitLab's take some hundred.
const CONFIGURATION: u64 = 1 << 20;
/// Bytes of `HEAD`: one reference.
const HEAD: u64 = 4096;
/// How many object directories a repository may have besides its own.
const STORES: usize = 16;
/// What Git is told, whatever a version's defaults are. It starts no program, and reads nothing
/// that could be stale; and as GitLab's own check does, it takes what old clients wrote for no
/// damage.
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
/// Its environment: no configuration but the repository's, no replaced objects, nothing fetched,
/// nobody asked.
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

/// Where repositories are put together.
pub(in crate::stores::files) struct Desk<'a> {
    config: &'a Config,
    part: &'a Part,
    /// Where they are laid out as they were: closed to everybody.
    place: Directory,
    /// Where Git reads them.
    desk: Directory,
    scratch: &'a Scratch,
    user: Option<&'a User>,
    program: PathBuf,
    /// The object directories of pools, by their paths in the snapshot.
    stores: BTreeMap<PathBuf, Store>,
}

/// Where one of them is now, and those that it needs itself.
struct Store {
    place: PathBuf,
    further: Vec<PathBuf>,
}

/// Git, the host's or that of GitLab's package.
///
/// # Errors
/// If there is none.
pub fn program() -> Result<PathBuf> {
    let directories = [process::search_path(), vec![PathBuf::from(OMNIBUS)]].concat();
    process::find("git", directories).context("git is not installed")
}

impl<'a> Desk<'a> {
    /// For the repositories of `part`, which are laid out in `place`.
    ///
    /// # Errors
    /// If there is no Git, or no place.
    pub fn new(
        config: &'a Config,
        part: &'a Part,
        place: &Path,
        scratch: &'a Scratch,
        user: Option<&'a User>,
    ) -> Result<Self> {
        let program = program()?;
        let desk = Directory::open(&scratch.create_place(DESK)?)?;
        let place = Directory::open(place)?;
        lend(&desk, user)?;
        Ok(Self { config, part, place, desk, scratch, user, program, stores: BTreeMap::new() })
    }

    /// Removes what was laid out for Git.
    pub fn clear(self) -> Result<()> {
        self.scratch.remove_place(DESK)
    }

    /// Has Git check the repository that the part holds at `path`.
    pub fn fsck(&mut self, path: &Path) -> Result<String> {
        let seen = self.lay_out(path).and_then(|laid| self.look(path, &laid));
        // All of them at once may be more than there is room for.
        let cleared = self.sweep().and_then(|()| self.desk.remove(OsStr::new(REPOSITORY)));
        seen.and_then(|seen| cleared.map(|()| seen))
    }

    /// Lays out what the part holds at `path`, as it was.
    fn lay_out(&self, path: &Path) -> Result<Directory> {
        extract::in_child(self.config, &self.part.snapshot, self.place.path(), &[path.to_owned()])?;
        self.place.below(path.strip_prefix("/").unwrap_or(path))
    }

    /// Empties the place.
    fn sweep(&self) -> Result<()> {
        self.place.entries()?.iter().try_for_each(|(name, _)| self.place.remove(name))
    }

    fn look(&mut self, path: &Path, laid: &Directory) -> Result<String> {
        let repository = self.desk.make(OsStr::new(REPOSITORY), 0o700)?;
        let configuration = self.configuration(laid)?;
        write(&repository, "config", configuration.text().as_bytes())?;
        write(&repository, "HEAD", &head(laid)?)?;
        take(laid, &repository, "refs", FileType::Directory)?;
        take(laid, &repository, "objects", FileType::Directory)?;
        for name in ["packed-refs", "shallow"] {
            if laid.look(Path::new(name))?.is_some() {
                take(laid, &repository, name, FileType::RegularFile)?;
            }
        }
        if configuration.reftable {
            take(laid, &repository, "reftable", FileType::Directory)?;
        }
        let objects = repository.below(Path::new("objects"))?;
        let wanted = self.wanted(&objects, &path.join("objects"))?;
        self.sweep()?;
        let (stores, more) = self.fetch(&path.join("objects"), wanted)?;
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
        let bytes = lend(&repository, self.user)?.saturating_add(more);
        let mut git = self.git();
        git.env("GIT_DIR", repository.path());
        git.args(SETTINGS.iter().flat_map(|setting| ["-c", setting])).args([
            "fsck",
            "--no-dangling",
            "--no-progress",
        ]);
        confined::run(&mut git, "git", patience(bytes))?;
        Ok("git fsck is content".to_owned())
    }

    /// Git, confined to the desk.
    fn git(&self) -> Command {
        let mut command = Confinement::new(self.user, self.desk.path()).command(&self.program);
        command
            .envs(ENVIRONMENT)
            .env("XDG_CONFIG_HOME", self.desk.path().join("none"))
            .env("HOME", self.desk.path().join("none"));
        command
    }

    /// The directories that `objects` names as alternates. What names them is removed: Git is told
    /// by us.
    fn wanted(&self, objects: &Directory, path: &Path) -> Result<Vec<PathBuf>> {
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
        alternates::named(path, &content, &self.part.paths)
    }

    /// A fork's objects may be in a pool, which is then needed as well, and what that needs.
    /// Returns where all of them are, and the bytes of those that were laid out for this.
    fn fetch(&mut self, own: &Path, wanted: Vec<PathBuf>) -> Result<(Vec<PathBuf>, u64)> {
        let (mut pending, mut seen, mut places, mut bytes) =
            (wanted, vec![own.to_owned()], Vec::new(), 0_u64);
        while let Some(path) = pending.pop() {
            if seen.contains(&path) {
                continue;
            }
            ensure!(seen.len() <= STORES, "it has objects in more than {STORES} other places");
            seen.push(path.clone());
            if !self.stores.contains_key(&path) {
                let fetched = self.store(&path);
                self.sweep()?;
                let (store, size) =
                    fetched.with_context(|| format!("its pool {}", text::path(&path)))?;
                bytes = bytes.saturating_add(size);
                self.stores.insert(path.clone(), store);
            }
            if let Some(store) = self.stores.get(&path) {
                places.push(store.place.clone());
                pending.extend(store.further.iter().cloned());
            }
        }
        Ok((places, bytes))
    }

    /// Lays out an object directory for Git; its bytes too.
    fn store(&self, path: &Path) -> Result<(Store, u64)> {
        let laid = self.lay_out(path)?;
        let above =
            Directory::open(laid.path().parent().context("it is no directory of objects")?)?;
        let name = OsString::from(format!("objects{}", self.stores.len()));
        above.rename(
            path.file_name().context("it is no directory of objects")?,
            &self.desk,
            &name,
        )?;
        let objects = self.desk.below(Path::new(&name))?;
        let further = self.wanted(&objects, path)?;
        let bytes = lend(&objects, self.user)?;
        Ok((Store { place: objects.path().to_owned(), further }, bytes))
    }

    /// What of the repository's configuration says how it is to be read.
    fn configuration(&self, laid: &Directory) -> Result<Configuration> {
        if laid.look(Path::new("config"))?.is_none() {
            return Ok(Configuration::default());
        }
        let content = laid.read(Path::new("config"), CONFIGURATION)?;
        let theirs = self.desk.make(OsStr::new("theirs"), 0o700)?;
        let read = || -> Result<String> {
            write(&theirs, "config", &content)?;
            lend(&theirs, self.user)?;
            let mut git = self.git();
            git.args(["config", "--no-includes", "-z", "--file"])
                .arg(theirs.path().join("config"))
                .arg("--list");
            confined::run(&mut git, "git config", patience(0))
        };
        let said = read().context("its configuration cannot be read");
        self.desk.remove(OsStr::new("theirs"))?;
        Configuration::of(&said?)
    }
}

/// How a repository is to be read.
#[derive(Debug, Default, PartialEq, Eq)]
struct Configuration {
    version: u32,
    sha256: bool,
    reftable: bool,
}

impl Configuration {
    /// From what `git config -z --list` says: names and values. Of a name that is there twice, the
    /// last counts.
    fn of(said: &str) -> Result<Self> {
        let mut configuration = Self::default();
        for pair in said.split('\0') {
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

    /// A configuration that says so, and nothing else. Bare, wherever it was: there are no files to
    /// compare.
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

/// What `HEAD` says; one that is a link to a reference, as Git once made them, says that.
fn head(laid: &Directory) -> Result<Vec<u8>> {
    let name = Path::new("HEAD");
    let stat = laid.look(name)?.context("it has no HEAD")?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
        return laid.read(name, HEAD);
    }
    let target = laid.target(name.as_os_str())?;
    ensure!(
        target.starts_with(b"refs/") && !target.contains(&b'\n'),
        "its HEAD is a symbolic link to {}",
        text::bytes(&target)
    );
    Ok([b"ref: ", &target[..], b"\n"].concat())
}

/// Moves `name` over if it is of this kind.
fn take(from: &Directory, to: &Directory, name: &str, kind: FileType) -> Result<()> {
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
        let said = "core.repositoryformatversion\n1\0core.fsmonitor\n/tmp/x\0core.bare\0extensions.objectformat\nsha256\0include.path\n/x\0";
        let configuration = Configuration::of(said).unwrap();
        assert_eq!(configuration, Configuration { version: 1, sha256: true, reftable: false });
        assert_eq!(
            configuration.text(),
            "[core]\n\trepositoryformatversion = 1\n\tbare = true\n[extensions]\n\tobjectformat = sha256\n"
        );
        for unknown in [
            "core.repositoryformatversion\n2\0",
            "extensions.objectformat\nx]\n[core]\n\tfsmonitor = y\0",
            "extensions.refstorage\n\0",
        ] {
            assert!(Configuration::of(unknown).is_err(), "{unknown:?}");
        }
    }
}
