//! Archives written by an attacker who has the password: extracting them writes nothing outside the
//! target directory.

use std::ffi::OsStr;
use std::fs;
use std::io::Cursor;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use gitlab_backup::config::EngineName;
use gitlab_backup::repository::{self, Engine};
use rustic_backend::BackendOptions;
use rustic_core::repofile::{Metadata, Node, NodeType, SnapshotFile};
use rustic_core::{
    BackupOptions, Credentials, ReadSource, ReadSourceEntry, Repository, RepositoryOptions,
    RusticResult, SnapshotOptions,
};

use crate::quick_repository;
use crate::sizes::size;

type Content = Cursor<Vec<u8>>;

/// The entries to write: each with the path at which the library puts it, and the node, whose name
/// may be another one.
struct Hostile(Vec<(PathBuf, Node)>);

impl ReadSource for Hostile {
    type Open = Content;
    type Iter = std::vec::IntoIter<RusticResult<ReadSourceEntry<Content>>>;

    fn size(&self) -> RusticResult<Option<u64>> {
        Ok(None)
    }

    fn entries(&self) -> Self::Iter {
        let entry = |(path, node): &(PathBuf, Node)| {
            let content = if path.starts_with("/other") { b"other" } else { b"owned" };
            let open = node.is_file().then(|| Cursor::new(content.to_vec()));
            Ok(ReadSourceEntry { path: path.clone(), node: node.clone(), open })
        };
        self.0.iter().map(entry).collect::<Vec<_>>().into_iter()
    }
}

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap());
        fs::write(place.path("password"), "secret\n").unwrap();
        fs::create_dir_all(place.path("a/b/c/target")).unwrap();
        quick_repository::create(EngineName::Builtin, &place.path("repository"));
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn engine(&self, engine: EngineName) -> Box<dyn Engine> {
        let password = self.path("password");
        let location = self.path("repository").to_str().unwrap().to_owned();
        quick_repository::open(engine, location, &password, None)
    }

    fn archive(&self, entries: Vec<(PathBuf, Node)>) -> SnapshotFile {
        let location = self.path("repository").to_str().unwrap().to_owned();
        let backends = BackendOptions::default().repository(location).to_backends().unwrap();
        let repository =
            Repository::new(&RepositoryOptions::default().no_cache(true), &backends).unwrap();
        let repository =
            repository.open(&Credentials::password("secret")).unwrap().to_indexed_ids().unwrap();
        let snapshot = SnapshotOptions::default().host("x".to_owned()).to_snapshot().unwrap();
        let roots: Vec<PathBuf> = vec!["/".into()];
        repository
            .archive(&BackupOptions::default().no_scan(true), &Hostile(entries), snapshot, &roots)
            .unwrap()
    }

    /// All paths in the temporary directory, except those in the repository.
    fn around(&self) -> Vec<String> {
        let found = Command::new("find")
            .arg(self.0.path())
            .args(["-path", "*/repository", "-prune", "-o", "-print"])
            .output()
            .unwrap();
        let mut lines: Vec<String> =
            String::from_utf8_lossy(&found.stdout).lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }

    /// Asserts that extracting and listing these entries fail, that both errors name `what`, and
    /// that nothing is written.
    fn refused(&self, entries: Vec<(PathBuf, Node)>, what: &str) {
        let snapshot = self.archive(entries).id.to_hex().as_str().to_owned();
        let engine = self.engine(EngineName::Builtin);
        let before = self.around();
        let target = self.path("a/b/c/target");
        let error = format!(
            "{:#}",
            engine
                .extract(&snapshot, &target, &[])
                .err()
                .unwrap_or_else(|| panic!("laid out: {what}"))
        );
        assert!(error.contains(what), "'{what}' is not named: {error}");
        assert!(!error.contains(|character: char| character.is_control()), "{error:?}");
        assert_eq!(self.around(), before, "{what}: something was written");
        let error = format!(
            "{:#}",
            engine
                .list(&snapshot, &mut |_, _| {})
                .err()
                .unwrap_or_else(|| panic!("listed: {what}"))
        );
        assert!(error.contains(what), "'{what}' is not named: {error}");
    }
}

fn node(name: &[u8], kind: NodeType) -> Node {
    let mode = if matches!(kind, NodeType::Dir) { 0o755 | 1 << 31 } else { 0o644 };
    let size = if matches!(kind, NodeType::File) { 5 } else { 0 };
    Node::new_node(
        OsStr::from_bytes(name),
        kind,
        Metadata { mode: Some(mode), size, ..Metadata::default() },
    )
}

fn file(name: &[u8]) -> Node {
    node(name, NodeType::File)
}

fn link(name: &[u8], target: &Path) -> Node {
    node(name, NodeType::from_link(target))
}

fn at(path: &str, node: Node) -> (PathBuf, Node) {
    (PathBuf::from(path), node)
}

#[test]
fn a_name_that_is_none_is_refused_before_anything_is_written() {
    let place = Place::new();
    let outside = place.path("outside");
    let absolute = outside.to_str().unwrap().as_bytes().to_vec();
    let long = vec![b'x'; 256];
    let names: [(&[u8], &str); 11] = [
        (b"../../x", "'../../x' is no name"),
        (&absolute, "is no name of a file"),
        (b"a/b", "'a/b' is no name"),
        (b".", "'.' is no name"),
        (b"..", "'..' is no name"),
        (b"", "'' is no name"),
        (b"/", "'/' is no name"),
        (b"nu\0l", "'nu\\x00l' is no name"),
        (&long, "is no name of a file"),
        (b"../\x1b]0;x\x07", "'../\\x1b]0;x\\x07' is no name"),
        (b"../\xff", "'../\\xff' is no name"),
    ];
    for (name, what) in names {
        // The valid entry before it is not extracted either.
        place.refused(vec![at("/0", file(b"0")), at("/1", file(name))], what);
        place.refused(
            vec![
                at("/d", node(b"d", NodeType::Dir)),
                at("/d/0", file(b"0")),
                at("/d/1", file(name)),
            ],
            what,
        );
        place.refused(
            vec![
                at("/0", file(b"0")),
                at("/d", node(name, NodeType::Dir)),
                at("/d/0", file(b"passwd")),
            ],
            what,
        );
    }
}

#[test]
fn a_name_twice_or_out_of_order_is_refused() {
    let place = Place::new();
    let outside = place.path("outside");
    let directory = || node(b"a", NodeType::Dir);
    place.refused(
        vec![at("/1", link(b"a", &outside)), at("/2", directory()), at("/2/p", file(b"passwd"))],
        "'a', which is there twice",
    );
    place.refused(
        vec![at("/1", file(b"b")), at("/2", file(b"a"))],
        "'a', which is there twice or out of order",
    );
    place.refused(vec![at("/1", file(b"a")), at("/2", file(b"a"))], "'a', which is there twice");
    place.refused(
        vec![
            at("/d", node(b"d", NodeType::Dir)),
            at("/d/1", link(b"a", &outside)),
            at("/d/2", directory()),
            at("/d/2/p", file(b"passwd")),
        ],
        "'d/a', which is there twice",
    );
}

#[test]
fn nothing_is_below_a_link() {
    let place = Place::new();
    let outside = place.path("outside");
    fs::create_dir(&outside).unwrap();
    let tree = place.archive(vec![at("/p", file(b"passwd"))]).tree;
    for kind in [link(b"a", &outside), file(b"a"), node(b"a", NodeType::Fifo)] {
        let below = Node { subtree: Some(tree), ..kind };
        let entries = vec![at("/a", below)];
        place.refused(entries.clone(), "which is no directory and has something below it");
        let snapshot = place.archive(entries).id.to_hex().as_str().to_owned();
        let error = place
            .engine(EngineName::Builtin)
            .extract(&snapshot, &place.path("a/b/c/target"), &["/a/passwd".into()])
            .unwrap_err();
        assert!(format!("{error:#}").contains("/a is not a directory"), "{error:#}");
    }
    assert_eq!(fs::read_dir(outside).unwrap().count(), 0);
}

#[test]
fn a_tree_is_as_deep_as_a_path_is_long_and_as_wide_as_it_likes() {
    let place = Place::new();
    let mut path = PathBuf::from("/");
    let mut deep = Vec::new();
    // Long names need fewer levels for as long a path.
    let name = "d".repeat(size(79, 1));
    for _ in 0..6000 / (name.len() + 1) {
        path.push(&name);
        deep.push((path.clone(), node(name.as_bytes(), NodeType::Dir)));
    }
    place.refused(deep.clone(), "longer than a path can be");
    let room = 4095 - place.path("a/b/c/target").as_os_str().len();
    let levels = room / (name.len() + 1);
    let snapshot = place.archive(deep[..levels].to_vec()).id.to_hex().as_str().to_owned();
    let engine = place.engine(EngineName::Builtin);
    engine.extract(&snapshot, &place.path("a/b/c/target"), &[]).unwrap();
    let found = Command::new("find").arg(place.path("a/b/c/target")).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout).lines().count(), levels + 1);

    let many = size(2_000, 50_000);
    let wide: Vec<_> = (0..many)
        .map(|number| format!("{number:06}"))
        .map(|name| at(&format!("/{name}"), node(name.as_bytes(), NodeType::Dir)))
        .collect();
    let snapshot = place.archive(wide).id.to_hex().as_str().to_owned();
    let mut count = 0;
    engine.list(&snapshot, &mut |_, _| count += 1).unwrap();
    engine.extract(&snapshot, &place.path("wide"), &[]).unwrap();
    assert_eq!((count, fs::read_dir(place.path("wide")).unwrap().count()), (many, many));
}

/// Runs of older versions have one device number for all file systems below a path, so two files
/// can look like names of one file: they must not become one.
#[test]
fn a_name_is_never_linked_to_a_file_of_other_content() {
    let place = Place::new();
    let linked = |name: &[u8]| {
        let Node { meta, .. } = file(name);
        Node::new_node(
            OsStr::from_bytes(name),
            NodeType::File,
            Metadata { links: 2, inode: 7, device_id: 5, ..meta },
        )
    };
    let entries = vec![
        at("/one", node(b"one", NodeType::Dir)),
        at("/one/a", linked(b"a")),
        at("/one/b", linked(b"b")),
        at("/other", node(b"other", NodeType::Dir)),
        at("/other/a", linked(b"a")),
        at("/other/b", linked(b"b")),
    ];
    let snapshot = place.archive(entries).id.to_hex().as_str().to_owned();
    let engine = place.engine(EngineName::Builtin);
    let target = place.path("a/b/c/target");
    engine.extract(&snapshot, &target, &[]).unwrap();
    for (directory, content) in [("one", "owned"), ("other", "other")] {
        let [a, b] = ["a", "b"].map(|name| target.join(directory).join(name));
        assert_eq!([&a, &b].map(|path| fs::read_to_string(path).unwrap()), [content, content]);
        assert_eq!(
            a.metadata().unwrap().ino(),
            b.metadata().unwrap().ino(),
            "{directory}: one file of two names"
        );
    }
    // restic itself cannot distinguish them, so verify reports such files.
    assert_eq!(engine.count_false_links(&snapshot).unwrap(), Some(2));
    let honest = place
        .archive(vec![at("/a", linked(b"a")), at("/b", linked(b"b"))])
        .id
        .to_hex()
        .as_str()
        .to_owned();
    assert_eq!(engine.count_false_links(&honest).unwrap(), Some(0));
    assert_eq!(place.engine(EngineName::Restic).count_false_links(&snapshot).unwrap(), None);
}

/// The library alone stops at the first attribute of a file that it cannot set.
#[test]
fn what_cannot_be_set_keeps_no_other_attribute_from_a_file() {
    let place = Place::new();
    let attributes = serde_json::json!([{ "name": "no.such", "value": "eA==" }, { "name": "user.note", "value": "a2VwdA==" }]);
    let Node { meta, .. } = file(b"a");
    let meta =
        Metadata { extended_attributes: serde_json::from_value(attributes).unwrap(), ..meta };
    let snapshot = place
        .archive(vec![at("/a", Node::new_node(OsStr::new("a"), NodeType::File, meta))])
        .id
        .to_hex()
        .as_str()
        .to_owned();
    let target = place.path("a/b/c/target");
    place.engine(EngineName::Builtin).extract(&snapshot, &target, &[]).unwrap();
    assert_eq!(xattr::get(target.join("a"), "user.note").unwrap().as_deref(), Some(&b"kept"[..]));
}

/// Odd names are valid.
#[test]
fn what_is_only_odd_is_laid_out_by_either_engine() {
    let place = Place::new();
    let root = place.path("odd");
    fs::create_dir(&root).unwrap();
    let longest = vec![b'x'; 255];
    let names: [&[u8]; 12] = [
        b"*",
        b"?",
        b"[a]",
        b"a",
        b"\\",
        b"\\*",
        b"new\nline",
        b"\x1b]0;x\x07",
        b"..x",
        b"...",
        b"\xff",
        &longest,
    ];
    for name in names {
        fs::create_dir(root.join(OsStr::from_bytes(name))).unwrap();
        fs::write(root.join(OsStr::from_bytes(name)).join("file"), name).unwrap();
    }
    for name in [EngineName::Builtin, EngineName::Restic] {
        let engine = place.engine(name);
        let files = repository::Files::Live { paths: std::slice::from_ref(&root), exclude: &[] };
        let request = repository::StoreRequest {
            run: &"20261124T023000Z-8f3c".parse().unwrap(),
            part: "files",
            host: "lab",
            parents: &[],
            files,
            tolerance: repository::Tolerance::None,
            patience: std::time::Duration::from_secs(3),
        };
        let stored = engine.store(request, &Silent).unwrap();
        let mut listed = 0;
        engine
            .list(&stored.snapshot, &mut |path, _| listed += usize::from(path.ends_with("file")))
            .unwrap();
        assert_eq!(listed, names.len(), "{name:?}");
        for (number, odd) in names.iter().enumerate() {
            let target = place.path(&format!("{name:?}{number}"));
            engine
                .extract(&stored.snapshot, &target, &[root.join(OsStr::from_bytes(odd))])
                .unwrap();
            let laid = target.join(root.strip_prefix("/").unwrap());
            let found: Vec<_> =
                fs::read_dir(&laid).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            assert_eq!(found, [OsStr::from_bytes(odd)], "{name:?} lays out what was not asked for");
            assert_eq!(
                &fs::read(laid.join(OsStr::from_bytes(odd)).join("file")).unwrap(),
                odd,
                "{name:?}"
            );
        }
    }
}

struct Silent;

impl repository::Progress for Silent {
    fn bytes(&self, _: u64) {}
}
