//! Both engines on real directories, judged by the real restic. The same tests for each: they write
//! one format.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use gitlab_backup::config::{EngineName, Repository};
use gitlab_backup::open;
use gitlab_backup::paths::RootDirectory;
use gitlab_backup::repository::{Engine, Files, Progress, StoreRequest, Stored, Tolerance};
use gitlab_backup::values::{RunId, SecretSource};
use jiff::Timestamp;

use crate::quick_repository;

const BOTH: [EngineName; 2] = [EngineName::Builtin, EngineName::Restic];

struct Silent;

impl Progress for Silent {
    fn bytes(&self, _: u64) {}
}

/// A repository's place, its password and something to store, all in a directory of their own.
struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        // Not in /tmp: extended attributes need a real file system.
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        // Not what a directory gets by itself, so that it is seen whether a restore knows it.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o751)).unwrap();
        fs::write(directory.path().join("password"), "secret\n").unwrap();
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn engine(&self, engine: EngineName) -> Box<dyn Engine> {
        let password = self.path("password");
        let location = self.path("repository").to_str().unwrap().to_owned();
        quick_repository::open(engine, location, &password, None)
    }

    /// A repository that opens quickly: for tests that are not about keys.
    fn made(&self, engine: EngineName) -> Box<dyn Engine> {
        quick_repository::create(engine, &self.path("repository"));
        self.engine(engine)
    }

    /// A repository with the key file that the engine itself creates.
    fn made_with_real_key(&self, engine: EngineName) -> Box<dyn Engine> {
        let engine = self.engine(engine);
        assert!(engine.init().unwrap());
        engine
    }

    fn restic(&self, words: &[&str]) -> String {
        let mut command = Command::new("restic");
        command.arg("--no-cache").args(words);
        command
            .env("RESTIC_REPOSITORY", self.path("repository"))
            .env("RESTIC_PASSWORD_FILE", self.path("password"));
        let output = command.output().expect("restic is needed: tests/prepare installs it");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "restic {words:?}: {stderr}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Every file, directory and link that a repository can hold, with names that make trouble.
    fn tree(&self, name: &str) -> PathBuf {
        let root = self.path(name);
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::create_dir_all(root.join("a-b")).unwrap();
        fs::write(root.join("a/b/file"), "content").unwrap();
        fs::write(root.join("a-b/file"), vec![7; 3_000_000]).unwrap();
        fs::write(root.join("empty"), "").unwrap();
        fs::write(root.join("new\nline $HOME %n \"'\\ é"), "named").unwrap();
        fs::write(root.join(OsStr::from_bytes(b"not utf-8 \xff")), "bytes").unwrap();
        fs::hard_link(root.join("a/b/file"), root.join("linked")).unwrap();
        symlink("a/b/file", root.join("symbolic")).unwrap();
        symlink("/nowhere", root.join("dangling")).unwrap();
        fs::File::create(root.join("sparse")).unwrap().set_len(5_000_000).unwrap();
        fs::set_permissions(root.join("a/b/file"), fs::Permissions::from_mode(0o4751)).unwrap();
        fs::set_permissions(root.join("a"), fs::Permissions::from_mode(0o2770)).unwrap();
        fs::set_permissions(&root, fs::Permissions::from_mode(0o711)).unwrap();
        run("setfattr", &["-n", "user.note", "-v", "kept", root.join("empty").to_str().unwrap()]);
        xattr::set(root.join("a"), "user.binary", b"\0\xff\n").unwrap();
        xattr::set(root.join("a-b/file"), "user.none", b"").unwrap();
        // The kernel hides them from whoever may not set them.
        if rustix::thread::capabilities(None)
            .unwrap()
            .effective
            .contains(rustix::thread::CapabilitySet::SYS_ADMIN)
        {
            xattr::set(root.join("a/b"), "trusted.note", b"kept").unwrap();
        }
        run(
            "touch",
            &[
                "-d",
                "2001-02-03T04:05:06.123456789Z",
                root.join("a/b").to_str().unwrap(),
                root.to_str().unwrap(),
            ],
        );
        root
    }
}

fn run(program: &str, words: &[&str]) {
    let status = Command::new(program)
        .args(words)
        .status()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(status.success(), "{program} {words:?}");
}

fn id() -> RunId {
    "20261124T023000Z-8f3c".parse().unwrap()
}

fn store_with(
    engine: &dyn Engine,
    paths: &[PathBuf],
    exclude: &[&str],
    tolerance: Tolerance,
) -> anyhow::Result<Stored> {
    let exclude: Vec<String> = exclude.iter().map(ToString::to_string).collect();
    let files = Files::Live { paths, exclude: &exclude };
    let patience = std::time::Duration::from_secs(1);
    let request = StoreRequest {
        run: &id(),
        part: "files",
        host: "lab",
        parents: &["files"],
        files,
        tolerance,
        patience,
    };
    engine.store(request, &Silent)
}

fn store(engine: &dyn Engine, path: &Path) -> Stored {
    store_with(engine, &[path.to_owned()], &[], Tolerance::None).unwrap()
}

/// All that a restore has to bring back, one line for each entry below and including `root`.
fn inventory(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut queue = vec![root.to_owned()];
    while let Some(path) = queue.pop() {
        let metadata = path.symlink_metadata().unwrap();
        let name = path.strip_prefix(root).unwrap();
        let content = match metadata.file_type() {
            kind if kind.is_symlink() => format!("{:?}", fs::read_link(&path).unwrap()),
            kind if kind.is_dir() => {
                queue.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
                String::new()
            }
            _ => format!(
                "{:?} {}",
                fs::read(&path)
                    .unwrap()
                    .iter()
                    .fold(0_u64, |sum, byte| sum * 31 % 1_000_003 + u64::from(*byte)),
                metadata.nlink()
            ),
        };
        // restic sets no times on symbolic links.
        let time =
            if metadata.is_symlink() { (0, 0) } else { (metadata.mtime(), metadata.mtime_nsec()) };
        let attributes: BTreeMap<_, _> = xattr::list(&path)
            .unwrap()
            .map(|name| (name.clone(), xattr::get(&path, &name).unwrap()))
            .collect();
        let owner = (metadata.uid(), metadata.gid());
        let size = if metadata.is_dir() { 0 } else { metadata.len() };
        lines.push(format!(
            "{name:?} {:o} {owner:?} {size} {time:?} {content} {attributes:?}",
            metadata.mode()
        ));
    }
    lines.sort();
    lines
}

#[test]
fn restic_checks_and_restores_what_was_stored() {
    for name in BOTH {
        let place = Place::new();
        let engine = place.made(name);
        let (one, two) = (place.tree("one"), place.tree("two"));
        let stored =
            store_with(&*engine, &[two.clone(), one.clone()], &[], Tolerance::None).unwrap();
        assert_eq!((stored.skipped.len(), stored.bytes_added > 0), (0, true));
        assert_eq!((stored.snapshot.len(), stored.tree.len()), (64, 64), "{name:?}: ids in full");
        place.restic(&["check", "--read-data"]);
        let target = place.path("restored");
        place.restic(&["restore", &stored.snapshot, "--target", target.to_str().unwrap()]);
        for root in [&one, &two] {
            assert_eq!(
                inventory(&target.join(root.strip_prefix("/").unwrap())),
                inventory(root),
                "{name:?}"
            );
        }
        // The directories above keep their owner and mode as well.
        let above = place.directory.path();
        let restored = target.join(above.strip_prefix("/").unwrap()).metadata().unwrap();
        assert_eq!(
            (restored.mode(), restored.uid()),
            (above.metadata().unwrap().mode(), above.metadata().unwrap().uid()),
            "{name:?}"
        );
    }
}

/// Under another name it would be another attribute.
#[test]
fn an_attribute_whose_name_cannot_be_held_is_told() {
    let place = Place::new();
    let engine = place.made(EngineName::Builtin);
    let root = place.tree("tree");
    // restic 0.14 stores none of a link, and gives one that is stored to what the link points to.
    if rustix::thread::capabilities(None)
        .unwrap()
        .effective
        .contains(rustix::thread::CapabilitySet::SYS_ADMIN)
    {
        xattr::set(root.join("symbolic"), "trusted.note", b"of a link").unwrap();
    }
    let before = inventory(&root);
    xattr::set(root.join("empty"), OsStr::from_bytes(b"user.\xff"), b"x").unwrap();
    let stored = store(&*engine, &root);
    let target = place.path("restored");
    engine.extract(&stored.snapshot, &target, &[]).unwrap();
    assert_eq!(
        inventory(&target.join(root.strip_prefix("/").unwrap())),
        before,
        "all else comes back"
    );
    let left_out: Vec<String> = stored.left_out.iter().map(ToString::to_string).collect();
    assert_eq!(
        left_out,
        [format!(
            "{}: its attribute 'user.\\xff', whose name is not UTF-8",
            root.join("empty").display()
        )]
    );
}

#[test]
fn both_lay_out_what_was_stored() {
    for name in BOTH {
        let place = Place::new();
        let engine = place.made(name);
        let root = place.tree("tree");
        let stored = store(&*engine, &root);
        let below = |target: &Path| target.join(root.strip_prefix("/").unwrap());
        let whole = place.path("whole");
        engine.extract(&stored.snapshot, &whole, &[]).unwrap();
        assert_eq!(inventory(&below(&whole)), inventory(&root), "{name:?}");
        let one = place.path("one");
        engine.extract(&stored.snapshot, &one, &[root.join("a/b"), root.join("linked")]).unwrap();
        assert_eq!(fs::read(below(&one).join("a/b/file")).unwrap(), b"content", "{name:?}");
        assert!(!below(&one).join("empty").exists(), "{name:?} laid out more than was asked for");
        let error = engine
            .extract(&stored.snapshot, &place.path("none"), &[root.join("missing")])
            .unwrap_err();
        assert!(format!("{error:#}").contains("missing"), "{name:?}: {error:#}");
        let mut seen = Vec::new();
        engine
            .list(&stored.snapshot, &mut |path, size| seen.push((path.to_owned(), size)))
            .unwrap();
        assert!(
            seen.contains(&(root.join("a/b"), None))
                && seen.contains(&(root.join("a/b/file"), Some(7))),
            "{name:?}"
        );
        engine.check(true).unwrap();
        let pack = fs::read_dir(place.path("repository/data"))
            .unwrap()
            .flat_map(|directory| fs::read_dir(directory.unwrap().path()).unwrap());
        let pack = pack.map(|pack| pack.unwrap().path()).next().unwrap();
        let mut bytes = fs::read(&pack).unwrap();
        bytes[40] ^= 1;
        fs::remove_file(&pack).unwrap();
        fs::write(&pack, bytes).unwrap();
        assert!(engine.check(true).is_err(), "{name:?} does not find a flipped byte");
    }
}

#[test]
fn engines_read_each_other_and_find_the_parent() {
    for (first, second) in [(BOTH[0], BOTH[1]), (BOTH[1], BOTH[0])] {
        let place = Place::new();
        let root = place.tree("tree");
        let stored = store(&*place.made(first), &root);
        let engine = place.engine(second);
        assert!(!engine.init().unwrap());
        let again = store(&*engine, &root);
        assert!(
            again.bytes_added < 20_000,
            "{second:?} stored {} bytes of an unchanged tree again",
            again.bytes_added
        );
        assert_eq!((again.bytes, engine.snapshots().unwrap().len()), (stored.bytes, 2));
        assert_eq!(
            engine.reader().unwrap()(&stored.snapshot, &root.join("a/b/file")).unwrap(),
            b"content"
        );
        let snapshot = &engine.snapshots().unwrap()[0];
        assert_eq!((&snapshot.run, snapshot.part.as_str()), (&id(), "files"));
        engine.forget(&[stored.snapshot], std::time::Duration::from_secs(10)).unwrap();
        assert_eq!(engine.snapshots().unwrap().len(), 1);
        place.restic(&["check", "--read-data"]);
    }
}

#[test]
fn what_cannot_be_read_is_never_a_success() {
    let memory = PathBuf::from(format!("/proc/{}/mem", std::process::id()));
    for name in BOTH {
        let place = Place::new();
        let engine = place.made(name);
        let root = place.tree("tree");
        // Reading it is an input/output error, for root as well.
        let paths = [root.clone(), memory.clone()];
        let error =
            format!("{:#}", store_with(&*engine, &paths, &[], Tolerance::None).unwrap_err());
        assert!(error.contains("mem"), "{name:?}: {error}");
        assert!(
            engine.snapshots().unwrap().is_empty(),
            "{name:?} left a snapshot that is not complete"
        );
        let stored = store_with(&*engine, &paths, &[], Tolerance::Changing).unwrap();
        assert_eq!(stored.skipped.len(), 1, "{name:?}: {:?}", stored.skipped);
        let missing =
            store_with(&*engine, &[place.path("missing")], &[], Tolerance::Changing).unwrap_err();
        assert!(format!("{missing:#}").contains("missing"), "{name:?}: {missing:#}");
    }
}

#[test]
fn a_file_that_changes_while_it_is_read_is_noticed() {
    // Its metadata says 0 bytes, and it holds some: what a file looks like that grew after it was
    // looked at.
    let status = PathBuf::from(format!("/proc/{}/status", std::process::id()));
    let place = Place::new();
    let engine = place.made(EngineName::Builtin);
    let error = format!("{:#}", store_with(&*engine, &[status], &[], Tolerance::None).unwrap_err());
    assert!(error.contains("changed while it was read"), "{error}");
    assert!(engine.snapshots().unwrap().is_empty());
}

#[test]
fn both_leave_out_the_same() {
    let exclude = ["*.tmp", "!keep.tmp", "**/a/b", "/nothing", "cache/", "$HOME*", " *", "?*.odd"];
    let mut seen = Vec::new();
    for name in BOTH {
        let place = Place::new();
        let engine = place.made(name);
        let root = place.tree("tree");
        for file in [
            "x.tmp",
            "a/y.tmp",
            "a/keep",
            "a/keep.tmp",
            "tmp",
            "ab",
            "cache",
            "$HOME [*] $$",
            " x",
            "y ",
            "z",
            "*.odd",
            "n\nl.odd",
            ".odd",
        ] {
            fs::write(root.join(file), file).unwrap();
        }
        fs::create_dir_all(root.join("deep/cache")).unwrap();
        fs::write(root.join("deep/cache/file"), "").unwrap();
        let absolute = root.join("ab").to_str().unwrap().to_owned();
        let stored = store_with(
            &*engine,
            std::slice::from_ref(&root),
            &[&exclude[..], &[&absolute]].concat(),
            Tolerance::None,
        )
        .unwrap();
        let list = place.restic(&["ls", &stored.snapshot]);
        seen.push(
            list.lines()
                .filter_map(|line| line.split_once("/tree/").map(|(_, name)| name.to_owned()))
                .collect::<Vec<_>>(),
        );
    }
    assert_eq!(seen[0], seen[1]);
    let is_there = |name: &str| seen[0].iter().any(|seen| seen == name);
    for name in ["a/keep", "a/keep.tmp", "tmp", "cache", "y ", "z", ".odd"] {
        assert!(is_there(name), "{name} is missing: {seen:?}");
    }
    for name in [
        "x.tmp",
        "a/y.tmp",
        "a/b",
        "a/b/file",
        "ab",
        "deep/cache",
        "deep/cache/file",
        "$HOME [*] $$",
        " x",
        "*.odd",
        "n\nl.odd",
    ] {
        assert!(!is_there(name), "{name} is there: {seen:?}");
    }
}

#[test]
fn a_wrong_password_and_a_wrong_place_are_told() {
    for name in BOTH {
        let place = Place::new();
        let missing = format!("{:#}", place.engine(name).probe().unwrap_err());
        assert!(missing.contains("repository"), "{name:?}: {missing}");
        place.made(name);
        fs::write(place.path("password"), "other").unwrap();
        for error in
            [place.engine(name).probe().unwrap_err(), place.engine(name).init().unwrap_err()]
        {
            assert!(format!("{error:#}").contains("password"), "{name:?}: {error:#}");
        }
    }
    let place = Place::new();
    fs::create_dir(place.path("repository")).unwrap();
    fs::write(place.path("repository/precious"), "").unwrap();
    let error = format!("{:#}", place.engine(EngineName::Builtin).init().unwrap_err());
    assert!(error.contains("other files"), "{error}");
}

#[test]
fn a_kept_key_opens_only_its_own_repository() {
    let (place, other) = (Place::new(), Place::new());
    let key = place.path("key");
    let with_key = |place: &Place| {
        let location = place.path("repository").to_str().unwrap().to_owned();
        let password = place.path("password");
        quick_repository::open(EngineName::Builtin, location, &password, Some(&key))
    };
    quick_repository::create(EngineName::Builtin, &place.path("repository"));
    with_key(&place).probe().unwrap();
    assert_eq!(key.metadata().unwrap().mode() & 0o777, 0o600);
    let hidden = place.path("hidden");
    fs::rename(place.path("password"), &hidden).unwrap();
    with_key(&place).probe().unwrap();
    // Of no use: the password decides again.
    fs::write(&key, "{}").unwrap();
    assert!(with_key(&place).probe().is_err());
    fs::rename(&hidden, place.path("password")).unwrap();
    with_key(&place).probe().unwrap();
    other.made_with_real_key(EngineName::Builtin);
    with_key(&other).probe().unwrap();
}

#[test]
fn an_added_key_opens_for_the_other_engine() {
    for (name, other) in
        [(EngineName::Builtin, EngineName::Restic), (EngineName::Restic, EngineName::Builtin)]
    {
        let place = Place::new();
        let engine = place.made(name);
        let second = place.path("second");
        fs::write(&second, "another\n").unwrap();
        engine.add_key(&second).unwrap();
        fs::copy(&second, place.path("password")).unwrap();
        place.engine(other).probe().unwrap();
    }
}

#[test]
fn a_removed_key_does_not_open_and_the_one_in_use_stays() {
    for name in BOTH {
        let place = Place::new();
        let engine = place.made(name);
        quick_repository::add_key(&place.path("repository"), "another");
        let (current, other): (Vec<_>, Vec<_>) =
            engine.keys().unwrap().into_iter().partition(|key| key.current);
        assert_eq!((current.len(), other.len()), (1, 1), "{name:?}: {current:?} {other:?}");
        assert!(engine.remove_key(&current[0].id).is_err(), "{name:?} removed the key in use");
        engine.remove_key(&other[0].id).unwrap();
        assert_eq!(place.engine(name).keys().unwrap().len(), 1);
        fs::write(place.path("password"), "another\n").unwrap();
        assert!(place.engine(name).probe().is_err(), "{name:?}: a removed key still opens");
    }
}

#[test]
fn two_do_not_write_at_once() {
    let place = Place::new();
    let engine = place.made(EngineName::Builtin);
    let root = place.tree("tree");
    let held = fs::File::open(place.path("repository/config")).unwrap();
    held.lock().unwrap();
    let error = format!(
        "{:#}",
        store_with(&*engine, std::slice::from_ref(&root), &[], Tolerance::None).unwrap_err()
    );
    assert!(error.contains("another process"), "{error}");
    drop(held);
    store(&*engine, &root);
}

#[test]
fn a_killed_store_is_taken_up_again() {
    let place = Place::new();
    let engine = place.made(EngineName::Builtin);
    let root = place.tree("tree");
    // Much more than the metadata of the directories above, which may change meanwhile.
    let mut random = Vec::new();
    fs::File::open("/dev/urandom").unwrap().take(100_000).read_to_end(&mut random).unwrap();
    fs::write(root.join("random"), random).unwrap();
    let stored = store(&*engine, &root);
    // As a kill leaves it: packs are written, no index lists them, no snapshot names them; and half
    // a file.
    for directory in ["index", "snapshots"] {
        fs::remove_dir_all(place.path("repository").join(directory)).unwrap();
        fs::create_dir(place.path("repository").join(directory)).unwrap();
    }
    let leftover = place.path("repository/data/00/1234-tmp-5678");
    fs::create_dir_all(leftover.parent().unwrap()).unwrap();
    let young = leftover.with_file_name("1235-tmp-5679");
    for path in [&leftover, &young] {
        fs::write(path, "half").unwrap();
    }
    run("touch", &["-d", "2 days ago", leftover.to_str().unwrap()]);
    engine.recover(Timestamp::now()).unwrap();
    assert_eq!((leftover.exists(), young.exists()), (false, true));
    fs::remove_file(young).unwrap();
    let again = store(&*engine, &root);
    assert!(
        again.bytes_added * 10 < stored.bytes_added,
        "{} of {} bytes were stored again",
        again.bytes_added,
        stored.bytes_added
    );
    place.restic(&["check", "--read-data"]);
}

#[test]
fn packs_stay_small() {
    let place = Place::new();
    let engine = place.made(EngineName::Builtin);
    let root = place.path("big");
    // 64 MiB that do not compress.
    let mut state = 1_u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    })
    .take(64 << 20)
    .collect();
    fs::write(&root, noise).unwrap();
    store(&*engine, &root);
    let mut largest = 0;
    for directory in fs::read_dir(place.path("repository/data")).unwrap() {
        for pack in fs::read_dir(directory.unwrap().path()).unwrap() {
            largest = largest.max(pack.unwrap().metadata().unwrap().len());
        }
    }
    // A pack is closed by the blob that fills it: one blob more, of 8 MiB at most.
    assert!(largest > 4 << 20 && largest <= 17 << 20, "{largest}");
}

/// restic's REST protocol over a directory, as far as restic asks for it: answers everything with
/// one status, or says that it has removed what it keeps. In place of rest-server, which Debian 12
/// does not have: `--append-only` answers 403, and it is restic 0.18 that then ends well.
struct Server {
    address: String,
}

impl Server {
    fn new(directory: PathBuf, always: Option<u16>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let directory = directory.clone();
                std::thread::spawn(
                    move || while Self::answer(&stream, &directory, always).is_some() {},
                );
            }
        });
        Self { address }
    }

    fn answer(stream: &TcpStream, directory: &Path, always: Option<u16>) -> Option<()> {
        let mut reader = BufReader::new(stream);
        let (mut line, mut headers) = (String::new(), BTreeMap::new());
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).ok()?;
            match header.trim().split_once(": ") {
                Some((name, value)) => headers.insert(name.to_lowercase(), value.to_owned()),
                None => break,
            };
        }
        let mut words = line.split(' ');
        let (method, path) =
            (words.next()?, words.next()?.split('?').next()?.trim_start_matches('/'));
        let mut body =
            vec![0; headers.get("content-length").map_or(0, |length| length.parse().unwrap())];
        reader.read_exact(&mut body).ok()?;
        // Blobs of the default layout lie in a directory of their first two digits.
        let (kind, name) = path.rsplit_once('/').unwrap_or(("", path));
        let file = if kind == "data" && !name.is_empty() {
            directory.join(kind).join(&name[..2]).join(name)
        } else {
            directory.join(path)
        };
        let (status, content) = match (always, method) {
            (Some(status), _) => (status, Vec::new()),
            // Locks are removed, there as well.
            (_, "DELETE") if kind == "locks" => {
                (fs::remove_file(&file).map_or(404, |()| 200), Vec::new())
            }
            (_, "DELETE") => (200, Vec::new()),
            (_, "POST") => {
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(&file, &body).unwrap();
                (200, Vec::new())
            }
            _ if path.ends_with('/') => {
                let names: Vec<String> = walk(&file)
                    .iter()
                    .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
                    .collect();
                (200, serde_json::to_vec(&names).unwrap())
            }
            _ => match (
                fs::read(&file),
                headers
                    .get("range")
                    .and_then(|range| range.strip_prefix("bytes=")?.split_once('-')),
            ) {
                (Ok(content), Some((from, to))) => {
                    let (from, to) =
                        (from.parse::<usize>().unwrap(), to.parse().unwrap_or(content.len() - 1));
                    (206, content[from..=to].to_vec())
                }
                (Ok(content), None) => (200, content),
                (Err(_), _) => (404, Vec::new()),
            },
        };
        let kind = "application/vnd.x.restic.rest.v1";
        let head = format!(
            "HTTP/1.1 {status} x\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            content.len()
        );
        let mut writer = stream;
        writer.write_all(head.as_bytes()).ok()?;
        if method != "HEAD" {
            writer.write_all(&content).ok()?;
        }
        Some(())
    }
}

/// Every file below.
fn walk(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).map_or_else(
        |_| Vec::new(),
        |entries| entries.map(|entry| entry.unwrap().path()).collect(),
    );
    entries
        .into_iter()
        .flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] })
        .collect()
}

#[test]
fn what_cannot_be_reached_or_is_denied_is_not_none() {
    let place = Place::new();
    let at = |location: String| {
        let password = place.path("password");
        quick_repository::open(EngineName::Restic, location, &password, None)
    };
    let answers_below = |path: &str, status: u16| {
        let server = Server::new(place.path("nothing"), Some(status));
        at(format!("rest:http://{}{path}", server.address))
    };
    let answers = |status| answers_below("/", status);
    assert!(!answers(404).exists().unwrap());
    assert!(!at(place.path("nothing").to_str().unwrap().to_owned()).exists().unwrap());
    for (engine, words) in [
        (answers(403), "access is denied"),
        (answers(401), "access is denied"),
        (answers(500), "it cannot be reached"),
        // The location is not the answer.
        (answers_below("/403/Forbidden/", 500), "it cannot be reached"),
        (at("rest:http://127.0.0.1:1/".into()), "it cannot be reached"),
        (at("rest:http://127.0.0.1:1/403/".into()), "it cannot be reached"),
    ] {
        let error = format!("{:#}", engine.exists().unwrap_err());
        assert!(error.contains(words), "{error}");
        // None is made there either.
        let error = format!("{:#}", engine.init().unwrap_err());
        assert!(error.contains(words), "{error}");
    }
    place.made(EngineName::Restic);
    fs::write(place.path("password"), "another\n").unwrap();
    for engine in BOTH {
        let error = format!("{:#}", place.engine(engine).init().unwrap_err());
        assert!(error.contains("its own"), "{error}");
    }
}

/// What another machine has cannot be looked at without its password: a new one is made only where
/// that is known to be nothing.
#[test]
fn a_new_password_is_for_a_place_where_nothing_is() {
    let place = Place::new();
    place.made(EngineName::Restic);
    let root = RootDirectory::new(place.path("root"));
    let ensure_none = |location: String| {
        let password = SecretSource::File(place.path("password"));
        let config =
            Repository { engine: EngineName::Restic, location, password, environment_file: None };
        open::ensure_none(&config, &root, "new\n").map_err(|error| format!("{error:#}"))
    };
    let at = |path: &str| format!("rest:http://{}/", Server::new(place.path(path), None).address);
    ensure_none(at("nothing")).unwrap();
    let error = ensure_none(at("repository")).unwrap_err();
    assert!(error.contains("is the password its own?"), "{error}");
    let error = ensure_none("rest:http://127.0.0.1:1/".to_owned()).unwrap_err();
    assert!(error.contains("it cannot be reached"), "{error}");
}

/// What the tests copy is what the engines create: the same files and directories, with the same
/// modes. `UPDATE_REPOSITORIES=1` records it again.
#[test]
fn a_quick_repository_is_like_one_that_the_engine_creates() {
    let entries = |place: &Place| -> BTreeSet<(PathBuf, u32)> {
        let root = place.path("repository");
        let entries = inventory_of(&root, Path::new(""));
        let key = |path: &Path| path.parent() == Some(Path::new("keys"));
        let named = |path: PathBuf| if key(&path) { "keys/KEY".into() } else { path };
        entries.into_iter().map(|(path, mode)| (named(path), mode)).collect()
    };
    for name in BOTH {
        let (quick, real) = (Place::new(), Place::new());
        real.made_with_real_key(name);
        let expected = entries(&real);
        if std::env::var_os("UPDATE_REPOSITORIES").is_some() {
            quick_repository::record(name, &real.path("repository"));
        }
        quick.made(name).probe().unwrap();
        let actual = entries(&quick);
        let differing: Vec<_> = actual.symmetric_difference(&expected).collect();
        assert!(differing.is_empty(), "{name:?}: {differing:?}");
    }
}

/// The paths below `root` and their modes.
fn inventory_of(root: &Path, below: &Path) -> Vec<(PathBuf, u32)> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(root.join(below)).unwrap() {
        let entry = entry.unwrap();
        let path = below.join(entry.file_name());
        let metadata = entry.metadata().unwrap();
        if metadata.is_dir() {
            entries.extend(inventory_of(root, &path));
        }
        entries.push((path, metadata.mode()));
    }
    entries
}

/// A directory with keys and data is no place for a new repository, and none to be emptied.
#[test]
fn a_repository_without_its_configuration_is_damaged_and_not_none() {
    let place = Place::new();
    place.made(EngineName::Builtin);
    let config = place.path("repository").join("config");
    let content = fs::read(&config).unwrap();
    for engine in BOTH {
        fs::remove_file(&config).unwrap();
        for error in
            [place.engine(engine).exists().map(drop), place.engine(engine).init().map(drop)]
        {
            let error = format!("{:#}", error.unwrap_err());
            assert!(
                error.contains("is a damaged repository")
                    && error.contains("remove nothing")
                    && !error.contains("empty it"),
                "{error}"
            );
        }
        fs::write(&config, "").unwrap();
        let error = format!("{:#}", place.engine(engine).exists().unwrap_err());
        assert!(error.contains("is damaged") && !error.contains("password"), "{error}");
        fs::write(&config, &content).unwrap();
        assert!(place.engine(engine).exists().unwrap());
    }
}

#[test]
fn a_server_that_removes_nothing_is_not_believed() {
    let place = Place::new();
    place.made(EngineName::Restic);
    let server = Server::new(place.path("repository"), None);
    let (password, location) = (place.path("password"), format!("rest:http://{}/", server.address));
    let engine = quick_repository::open(EngineName::Restic, location, &password, None);
    let stored = store(&*engine, &place.tree("tree"));
    let error = format!(
        "{:#}",
        engine.forget(&[stored.snapshot], std::time::Duration::from_secs(3)).unwrap_err()
    );
    assert!(error.contains("does not let it"), "{error}");
}

#[test]
fn a_password_is_what_restic_reads_of_its_file() {
    for (text, password) in [
        (&b" secret \t\r\n\n"[..], "secret"),
        ("\u{a0}two words\u{2003}\n".as_bytes(), "two words"),
    ] {
        let place = Place::new();
        quick_repository::create(EngineName::Builtin, &place.path("repository"));
        quick_repository::add_key(&place.path("repository"), password);
        fs::write(place.path("password"), text).unwrap();
        for engine in BOTH {
            place
                .engine(engine)
                .probe()
                .unwrap_or_else(|error| panic!("{engine:?}, {password}: {error:#}"));
        }
    }
    for text in [&b"\xef\xbb\xbfsecret\n"[..], b"\xff\xfes\0e\0c\0", b"sec\xffret", b" \n"] {
        let place = Place::new();
        fs::write(place.path("password"), text).unwrap();
        assert!(place.engine(EngineName::Builtin).init().is_err(), "{text:?}");
    }
}
