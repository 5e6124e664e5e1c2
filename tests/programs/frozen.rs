//! A frozen view of files that change in deceptive ways: what the first pass sees, what the window
//! finds, and what the repository contains in the end.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use gitlab_backup::config::EngineName;
use gitlab_backup::frozen::{At, Content, Entry, Exclude, How, Staging, Time, View, Walk, settled};
use gitlab_backup::host::beneath::{Directory, KnownDirectory};
use gitlab_backup::host::clock::HostClock;
use gitlab_backup::repository::{self, Engine, Files, Progress, StoreRequest, Tolerance};
use gitlab_backup::values::RunId;

use crate::quick_repository;
use crate::sizes::size;

struct Silent;

impl Progress for Silent {
    fn bytes(&self, _: u64) {}
}

struct Lab {
    directory: tempfile::TempDir,
    engine: Box<dyn Engine>,
    root: PathBuf,
    rounds: usize,
}

impl Lab {
    fn new() -> Self {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let (password, location) =
            (directory.path().join("password"), directory.path().join("repository"));
        fs::write(&password, "secret\n").unwrap();
        let engine = quick_repository::open(
            EngineName::Builtin,
            location.to_str().unwrap().to_owned(),
            &password,
            None,
        );
        quick_repository::create(EngineName::Builtin, &location);
        let root = directory.path().join("root");
        fs::create_dir(&root).unwrap();
        Self { directory, engine, root, rounds: 0 }
    }

    fn store(
        &self,
        part: &str,
        parents: &[&str],
        view: View,
        tolerance: Tolerance,
    ) -> anyhow::Result<repository::Stored> {
        let run: RunId = "20261124T023000Z-8f3c".parse().unwrap();
        let request = StoreRequest {
            run: &run,
            part,
            host: "lab",
            parents,
            files: Files::Frozen(view),
            tolerance,
            patience: Duration::from_secs(3),
        };
        self.engine.store(request, &Silent)
    }

    /// Runs the first pass, with `meanwhile` between its walk and its reading of the files.
    fn first_pass(&self, meanwhile: impl FnOnce()) -> View {
        self.first_pass_settled(settled(&self.root, &HostClock).unwrap(), meanwhile)
    }

    fn first_pass_settled(&self, settled: Time, meanwhile: impl FnOnce()) -> View {
        let exclude = Exclude::new(&[]).unwrap();
        let walk = Walk::new(&exclude).while_files_change(settled);
        let mut view =
            View { roots: vec![walk.root(&self.root, &At::itself(&self.root), None).unwrap()] };
        assert!(walk.skipped().is_empty());
        meanwhile();
        let stored = self
            .store("presync", &["files", "presync"], view.clone(), Tolerance::Changing)
            .unwrap();
        view.forget(stored.skipped.iter().map(|skipped| skipped.path.as_path())).unwrap();
        view
    }

    /// Captures the window. Also returns the state of the files in it, which must come back.
    fn window(&mut self, seen: View, how: How) -> (View, Staging, BTreeMap<PathBuf, String>) {
        let (view, staging) = self.capture(seen, how);
        (view, staging, state(&self.root))
    }

    fn capture(&mut self, seen: View, how: How) -> (View, Staging) {
        self.rounds += 1;
        let mut held = KnownDirectory::planned(self.directory.path(), "staging-").unwrap();
        held.make().unwrap();
        let staging = Staging::new(&held, how).unwrap();
        let exclude = Exclude::new(&[]).unwrap();
        let walk = Walk::new(&exclude).securing(&staging);
        let seen = seen.roots.into_iter().next().map(|root| root.tree);
        let view = View {
            roots: vec![walk.root(&self.root, &At::itself(&self.root), seen.as_ref()).unwrap()],
        };
        let skipped = walk.skipped();
        assert!(skipped.is_empty(), "{skipped:?}");
        (view, staging)
    }

    /// Stores the view and extracts it. Returns the state of the extracted files.
    fn comes_back(&self, view: View) -> BTreeMap<PathBuf, String> {
        let stored = self.store("files", &["presync"], view, Tolerance::None).unwrap();
        let target = tempfile::tempdir_in(self.directory.path()).unwrap();
        self.engine.extract(&stored.snapshot, target.path(), &[]).unwrap();
        state(&target.path().join(self.root.strip_prefix("/").unwrap()))
    }
}

/// Everything that must come back of each path below `root`.
fn state(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut queue = vec![root.to_owned()];
    while let Some(path) = queue.pop() {
        let metadata = path.symlink_metadata().unwrap();
        let content = match metadata.file_type() {
            kind if kind.is_dir() => {
                queue.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
                String::new()
            }
            kind if kind.is_symlink() => fs::read_link(&path).unwrap().display().to_string(),
            _ => String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned(),
        };
        let attributes: Vec<_> = xattr::list(&path)
            .unwrap()
            .map(|name| (name.clone(), xattr::get(&path, &name).unwrap()))
            .collect();
        // The library does not restore the times of links.
        let time = if metadata.is_symlink() {
            0
        } else {
            metadata.mtime_nsec() + metadata.mtime() * 1_000_000_000
        };
        let line = format!(
            "{:o} {} {} {time} {attributes:?} {content}",
            metadata.mode(),
            metadata.uid(),
            metadata.gid()
        );
        found.insert(path.strip_prefix(root).unwrap().to_owned(), line);
    }
    found
}

fn content(view: &View, path: &str) -> Entry {
    view.roots[0]
        .tree
        .get(Path::new(path))
        .unwrap()
        .unwrap_or_else(|| panic!("{path} is not in the view"))
}

/// Writes a file with a modification time of an hour ago, like most files have.
fn old(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    File::options()
        .write(true)
        .open(path)
        .unwrap()
        .set_modified(SystemTime::now() - Duration::from_secs(3600))
        .unwrap();
}

/// A time after all changes so far: the first pass takes the files that exist now as settled.
fn settled_now() -> Time {
    std::thread::sleep(Duration::from_millis(50));
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    Time {
        seconds: i64::try_from(now.as_secs()).unwrap(),
        nanoseconds: i32::try_from(now.subsec_nanos()).unwrap(),
    }
}

#[test]
fn nothing_fools_it() {
    let mut lab = Lab::new();
    let at = |name: &str| lab.root.join(name);
    for name in [
        "same/file",
        "rewritten",
        "set-back",
        "replaced",
        "linked",
        "mode",
        "attribute",
        "deleted",
        "gone/file",
        "swapped-a/HEAD",
        "swapped-b/HEAD",
        "became/file",
        "grown",
        "mapped",
    ] {
        old(&at(name), &format!("{:<20}", name.replace('/', "")));
    }
    // Two files that differ only in their content and their inode number.
    for (name, text) in [("swapped-a/HEAD", "aaaa"), ("swapped-b/HEAD", "bbbb")] {
        old(&at(name), text);
    }
    symlink("same/file", at("symbolic")).unwrap();
    symlink("same/file", at("turned")).unwrap();
    let settled = settled_now();
    let seen = lab.first_pass_settled(settled, || ());

    let before = at("set-back").metadata().unwrap();
    fs::write(at("set-back"), format!("{:<20}", "other")).unwrap();
    File::options()
        .write(true)
        .open(at("set-back"))
        .unwrap()
        .set_modified(before.modified().unwrap())
        .unwrap();
    assert_eq!(
        (before.mtime_nsec(), before.size()),
        (
            at("set-back").metadata().unwrap().mtime_nsec(),
            at("set-back").metadata().unwrap().size()
        )
    );
    fs::write(at("rewritten"), format!("{:<20}", "same size")).unwrap();
    old(&at("new-one"), &format!("{:<20}", "over"));
    fs::rename(at("new-one"), at("replaced")).unwrap();
    fs::hard_link(at("linked"), at("linked-too")).unwrap();
    fs::set_permissions(at("mode"), fs::Permissions::from_mode(0o4700)).unwrap();
    xattr::set(at("attribute"), "user.note", b"new").unwrap();
    fs::remove_file(at("deleted")).unwrap();
    fs::remove_dir_all(at("gone")).unwrap();
    fs::create_dir_all(at("new/directory")).unwrap();
    fs::write(at("new/directory/file"), "new").unwrap();
    fs::rename(at("swapped-a"), at("swapped-c")).unwrap();
    fs::rename(at("swapped-b"), at("swapped-a")).unwrap();
    fs::rename(at("swapped-c"), at("swapped-b")).unwrap();
    fs::remove_dir_all(at("became")).unwrap();
    fs::write(at("became"), "a file now").unwrap();
    File::options().append(true).open(at("grown")).unwrap().write_at(b"more", 20).unwrap();
    fs::remove_file(at("turned")).unwrap();
    symlink("rewritten", at("turned")).unwrap();

    let (view, staging, expected) = lab.window(seen, How::Copy);
    assert_eq!(content(&view, "same/file").content, Content::Seen);
    for name in [
        "rewritten",
        "set-back",
        "replaced",
        "linked-too",
        "mode",
        "attribute",
        "new/directory/file",
        "swapped-a/HEAD",
        "became",
        "grown",
    ] {
        assert!(
            matches!(content(&view, name).content, Content::Staged(_)),
            "{name}: {:?}",
            content(&view, name).content
        );
    }
    let secured = staging.content().0;
    assert!((11..=14).contains(&secured), "{secured} files secured");
    // GitLab is up again and changes files: the view stays the same.
    for name in ["same/file", "rewritten", "replaced"] {
        fs::write(lab.root.join(name), "after the window").unwrap();
    }
    fs::remove_dir_all(lab.root.join("new")).unwrap();
    assert_eq!(lab.comes_back(view), expected);
}

/// GitLab is down in the window, so a copy must cost no more than the file's blocks on disk, and a
/// file with several names is copied only once.
#[test]
fn a_file_with_holes_and_two_names_costs_what_it_has_on_the_disk() {
    let length = (size(16, 64) << 20) as u64;
    let mut lab = Lab::new();
    old(&lab.root.join("settled"), "settled");
    let seen = lab.first_pass(|| {});
    let (first, second) = (lab.root.join("first"), lab.root.join("second"));
    let file = File::create(&first).unwrap();
    file.set_len(length).unwrap();
    file.write_all_at(&[b'x'; 4096], length / 2).unwrap();
    file.sync_all().unwrap();
    fs::hard_link(&first, &second).unwrap();
    let ends = lab.root.join("ends");
    let file = File::create(&ends).unwrap();
    file.set_len(length).unwrap();
    file.write_all_at(b"begin", 0).unwrap();
    file.write_all_at(b"end", length - 3).unwrap();
    file.sync_all().unwrap();
    File::create(lab.root.join("hole")).unwrap().set_len(length).unwrap();
    let on_disk: u64 = [&first, &ends, &lab.root.join("settled")]
        .iter()
        .map(|path| path.metadata().unwrap().blocks() * 512)
        .sum();

    let (view, staging, expected) = lab.window(seen, How::Copy);
    let (files, bytes) = staging.content();
    // The file "settled" may still be too young for its metadata to show that it is unchanged.
    assert!((3..=4).contains(&files), "{files} files secured");
    assert!(bytes <= on_disk, "{bytes} bytes are copied of files that have {on_disk} on the disk");
    assert_eq!(content(&view, "first").content, content(&view, "second").content);
    assert!(lab.comes_back(view) == expected, "what came back differs");
}

/// The kernel's clock for files is coarse: two changes within one tick leave the same time of
/// change.
#[test]
fn a_change_within_one_tick_of_the_clock_is_found() {
    for round in 0..size(3, 20) {
        let mut lab = Lab::new();
        let path = lab.root.join("file");
        fs::write(&path, "first").unwrap();
        let seen = lab.first_pass(|| ());
        fs::write(&path, "other").unwrap();
        let (view, _staging, expected) = lab.window(seen, How::Copy);
        assert!(matches!(content(&view, "file").content, Content::Staged(_)), "round {round}");
        assert_eq!(lab.comes_back(view), expected, "round {round}");
    }
}

#[test]
fn what_changes_while_the_first_pass_reads_it_is_taken_in_the_window() {
    let mut lab = Lab::new();
    for name in ["rewritten", "longer", "removed", "replaced", "pipe"] {
        old(&lab.root.join(name), "as the first pass saw it");
    }
    let root = lab.root.clone();
    let seen = lab.first_pass_settled(settled_now(), || {
        fs::write(root.join("rewritten"), "as the first pass read i").unwrap();
        fs::write(root.join("longer"), "as the first pass saw it, and more").unwrap();
        fs::remove_file(root.join("removed")).unwrap();
        old(&root.join("other"), "as the first pass read i");
        fs::rename(root.join("other"), root.join("replaced")).unwrap();
        fs::remove_file(root.join("pipe")).unwrap();
        // Opening it for reading would block forever.
        rustix::fs::mknodat(
            rustix::fs::CWD,
            root.join("pipe"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
    });
    fs::remove_file(lab.root.join("pipe")).unwrap();
    fs::write(lab.root.join("removed"), "as the first pass saw it").unwrap();
    let (view, _staging, expected) = lab.window(seen, How::Copy);
    assert_eq!(lab.comes_back(view), expected);
}

/// The next day's first pass is compared with today's files, of which some may have been secured
/// because they changed after today's first pass.
#[test]
fn the_next_day_starts_from_what_was_captured() {
    let mut lab = Lab::new();
    for day in 0..4 {
        fs::write(lab.root.join("daily"), format!("day {day}")).unwrap();
        old(&lab.root.join("constant"), "the same");
        let seen = lab.first_pass_settled(settled_now(), || ());
        fs::write(lab.root.join("hourly"), format!("day {day}")).unwrap();
        let (view, _staging, expected) = lab.window(seen, How::Copy);
        assert_eq!(content(&view, "daily").content, Content::Seen);
        assert_eq!(lab.comes_back(view), expected, "day {day}");
    }
}

/// A file that the first pass saw but did not store must not count as stored.
#[test]
fn without_the_first_pass_s_content_nothing_is_stored() {
    let mut lab = Lab::new();
    old(&lab.root.join("file"), "content");
    let exclude = Exclude::new(&[]).unwrap();
    let walk = Walk::new(&exclude).while_files_change(settled_now());
    let seen = View { roots: vec![walk.root(&lab.root, &At::itself(&lab.root), None).unwrap()] };
    let (view, _staging, _) = lab.window(seen, How::Copy);
    assert_eq!(content(&view, "file").content, Content::Seen);
    let error =
        format!("{:#}", lab.store("files", &["presync"], view, Tolerance::None).unwrap_err());
    assert!(
        error.contains(
            "file: is unchanged since the first pass, but its content is not in the repository"
        ),
        "{error}"
    );
    assert!(lab.engine.snapshots().unwrap().is_empty(), "nothing incomplete is left");
}

/// A file system snapshot is read at its mount point, and its files are stored under their original
/// paths.
#[test]
fn the_repository_sees_original_paths() {
    let mut lab = Lab::new();
    old(&lab.root.join("a/b"), "content");
    let expected = state(&lab.root);
    let snapshot = lab.directory.path().join("mounted-snapshot");
    fs::rename(&lab.root, &snapshot).unwrap();
    fs::create_dir(&lab.root).unwrap();
    let exclude = Exclude::new(&[]).unwrap();
    let root = Walk::new(&exclude)
        .root(
            &lab.root,
            &At { directory: lab.directory.path().into(), inside: "mounted-snapshot".into() },
            None,
        )
        .unwrap();
    lab.rounds += 1;
    assert_eq!(lab.comes_back(View { roots: vec![root] }), expected);
}

#[test]
fn a_view_is_the_same_when_it_is_read_again() {
    let lab = Lab::new();
    old(&lab.root.join("a/b"), "content");
    symlink("a", lab.root.join("link")).unwrap();
    xattr::set(lab.root.join("a/b"), "user.note", b"kept").unwrap();
    let view = lab.first_pass(|| ());
    let path = lab.directory.path().join("view");
    view.save(&path).unwrap();
    assert_eq!(View::load(&path).unwrap().unwrap(), view);
    fs::write(&path, b"\xff\xff\xff").unwrap();
    assert!(View::load(&path).is_err());
    assert!(View::load(&lab.directory.path().join("none")).unwrap().is_none());
}

/// Anyone who may push can create directories of any depth: no function may recurse into them or
/// keep a descriptor open for each.
#[test]
fn a_directory_of_any_depth_is_captured() {
    let mut lab = Lab::new();
    let mut here = Directory::open(&lab.root).unwrap();
    // A path may be 4,095 bytes long.
    let levels = size(300, 1700);
    for level in 0..levels {
        here.create(OsStr::new("f"), 0o644).unwrap();
        if level % 10 == 0 {
            here.make(OsStr::new("z"), 0o755).unwrap();
        }
        here = here.make(OsStr::new("d"), 0o755).unwrap();
    }
    drop(here);
    let seen = lab.first_pass_settled(settled_now(), || ());
    let entries = 1 + levels * 2 + levels / 10;
    assert_eq!(seen.roots[0].tree.count(), entries as u64);
    let (view, _staging) = lab.capture(seen, How::Copy);
    let deepest: PathBuf = (1..levels).map(|_| "d").chain(["f"]).collect();
    assert_eq!(view.roots[0].tree.get(&deepest).unwrap().unwrap().content, Content::Seen);
    let path = lab.directory.path().join("view");
    view.save(&path).unwrap();
    assert_eq!(View::load(&path).unwrap().unwrap(), view);
    let stored = lab.store("files", &["presync"], view, Tolerance::None).unwrap();
    let mut files = 0;
    lab.engine.list(&stored.snapshot, &mut |_, size| files += usize::from(size.is_some())).unwrap();
    assert_eq!(files, levels);
    let target = tempfile::tempdir_in(lab.directory.path()).unwrap();
    lab.engine.extract(&stored.snapshot, target.path(), &[]).unwrap();
    let laid = target.path().join(lab.root.strip_prefix("/").unwrap());
    assert!(Directory::open(&laid).unwrap().look(&deepest).unwrap().is_some());
}

/// The window examines only files that changed since the first pass, but it must also report what
/// is left out of the unchanged ones.
#[test]
fn an_attribute_that_was_left_out_is_told_by_the_window() {
    let mut lab = Lab::new();
    for name in ["settled", "changed"] {
        old(&lab.root.join(name), name);
    }
    let expected = state(&lab.root);
    for name in ["settled", "changed"] {
        xattr::set(lab.root.join(name), OsStr::from_bytes(b"user.\xff"), b"x").unwrap();
    }
    let seen = lab.first_pass_settled(settled_now(), || ());
    fs::set_permissions(lab.root.join("changed"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(lab.root.join("changed"), fs::Permissions::from_mode(0o644)).unwrap();
    let mut held = KnownDirectory::planned(lab.directory.path(), "staging-").unwrap();
    held.make().unwrap();
    let staging = Staging::new(&held, How::Copy).unwrap();
    let exclude = Exclude::new(&[]).unwrap();
    let walk = Walk::new(&exclude).securing(&staging);
    let view = View {
        roots: vec![
            walk.root(&lab.root, &At::itself(&lab.root), Some(&seen.roots[0].tree)).unwrap(),
        ],
    };
    assert_eq!(content(&view, "settled").content, Content::Seen);
    let mut told: Vec<String> = walk.left_out().iter().map(ToString::to_string).collect();
    told.sort();
    let line = |name: &str| {
        format!(
            "{}: its attribute 'user.\\xff', whose name is not UTF-8",
            lab.root.join(name).display()
        )
    };
    assert_eq!(told, [line("changed"), line("settled")]);
    lab.rounds += 1;
    assert_eq!(lab.comes_back(view), expected);
}

/// A path that is too long cannot be restored: it is left out and reported, and everything else is
/// captured.
#[test]
fn what_is_too_deep_for_a_path_is_left_out_and_told() {
    let lab = Lab::new();
    old(&lab.root.join("beside"), "content");
    let mut here = Directory::open(&lab.root).unwrap();
    // A path may be 4,095 bytes long.
    let name = "deep".repeat(size(20, 1));
    for _ in 0..size(100, 3000) {
        here = here.make(OsStr::new(&name), 0o755).unwrap();
        here.create(OsStr::new("file"), 0o644).unwrap();
    }
    drop(here);
    let exclude = Exclude::new(&[]).unwrap();
    let walk = Walk::new(&exclude);
    let root = walk.root(&lab.root, &At::itself(&lab.root), None).unwrap();
    assert!(walk.skipped().is_empty());
    let left_out = walk.left_out();
    assert!((1..=2).contains(&left_out.len()), "{}", left_out.len());
    assert!(
        left_out[0].error.contains("bytes, and a restore could not make it"),
        "{}",
        left_out[0].error
    );
    assert!(root.tree.get(Path::new("beside")).unwrap().is_some());
    assert!(root.tree.count() > size(90, 1000) as u64);
    let stored = lab.store("files", &[], View { roots: vec![root] }, Tolerance::None).unwrap();
    let target = tempfile::tempdir_in(lab.directory.path()).unwrap();
    lab.engine.extract(&stored.snapshot, target.path(), &[]).unwrap();
    Directory::open(lab.directory.path()).unwrap().remove(OsStr::new("root")).unwrap();
}

/// A directory that is replaced by a link after the walk leads nowhere else: content is read only
/// from the file that the walk saw.
#[test]
fn a_view_never_leaves_its_root() {
    let lab = Lab::new();
    old(&lab.root.join("d/file"), "mine");
    old(&lab.directory.path().join("elsewhere/file"), "theirs");
    let exclude = Exclude::new(&[]).unwrap();
    let root = Walk::new(&exclude).root(&lab.root, &At::itself(&lab.root), None).unwrap();
    fs::rename(lab.root.join("d"), lab.root.join("moved")).unwrap();
    symlink(lab.directory.path().join("elsewhere"), lab.root.join("d")).unwrap();
    let error = format!(
        "{:#}",
        lab.store("files", &[], View { roots: vec![root] }, Tolerance::None).unwrap_err()
    );
    assert!(error.contains("d/file"), "{error}");
    let root = Walk::new(&exclude).root(&lab.root, &At::itself(&lab.root), None).unwrap();
    fs::remove_file(lab.root.join("d")).unwrap();
    fs::rename(lab.directory.path().join("elsewhere"), lab.root.join("d")).unwrap();
    let stored = lab.store("files", &[], View { roots: vec![root] }, Tolerance::None).unwrap();
    let mut names = Vec::new();
    lab.engine.list(&stored.snapshot, &mut |path, _| names.push(path.to_owned())).unwrap();
    assert!(!names.contains(&lab.root.join("d/file")), "{names:?}");
}

/// Others may own the directory around the clones: what they put in place of the clones is not
/// read.
#[test]
fn what_takes_the_place_of_a_staging_area_is_not_read() {
    let mut lab = Lab::new();
    old(&lab.root.join("file"), "content");
    let seen = lab.first_pass_settled(settled_now(), || ());
    fs::write(lab.root.join("file"), "changed").unwrap();
    let (view, staging, _) = lab.window(seen, How::Copy);
    let at = staging.held().path.clone();
    fs::rename(&at, lab.directory.path().join("away")).unwrap();
    fs::create_dir_all(at.join("0")).unwrap();
    fs::write(at.join("0/0"), "forged!").unwrap();
    let error =
        format!("{:#}", lab.store("files", &["presync"], view, Tolerance::None).unwrap_err());
    assert!(error.contains("is not the directory that was made there"), "{error}");
    assert!(staging.held().remove().is_err() && at.join("0/0").exists());
}

/// A view of many entries, a million in full size, is walked, saved and loaded completely.
#[test]
fn many_entries_are_walked_and_read_again() {
    let files = size(500, 10_000);
    let lab = Lab::new();
    let open = Directory::open(&lab.root).unwrap();
    for directory in 0..100 {
        let inside = open.make(OsStr::new(&directory.to_string()), 0o755).unwrap();
        for file in 0..files {
            // A hard link is an entry like any other, and created quickly.
            match file {
                0 => drop(inside.create(OsStr::new("0"), 0o644).unwrap()),
                file => rustix::fs::linkat(
                    &inside,
                    "0",
                    &inside,
                    file.to_string(),
                    rustix::fs::AtFlags::empty(),
                )
                .unwrap(),
            }
        }
    }
    let exclude = Exclude::new(&[]).unwrap();
    let root = Walk::new(&exclude).root(&lab.root, &At::itself(&lab.root), None).unwrap();
    assert_eq!(root.tree.count(), u64::try_from(100 * files + 101).unwrap());
    let view = View { roots: vec![root] };
    let path = lab.directory.path().join("view");
    view.save(&path).unwrap();
    assert_eq!(
        View::load(&path).unwrap().unwrap().roots[0].tree.count(),
        u64::try_from(100 * files + 101).unwrap()
    );
    Directory::open(lab.directory.path()).unwrap().remove(OsStr::new("root")).unwrap();
}
