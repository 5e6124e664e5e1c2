use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};

use super::*;

fn place() -> (tempfile::TempDir, Directory) {
    let place = tempfile::tempdir().unwrap();
    let open = Directory::open(place.path()).unwrap();
    (place, open)
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn a_link_that_other_users_could_have_created_is_not_followed() {
    let (place, _) = place();
    let at = |name: &str| place.path().join(name);
    for name in ["theirs", "ours", "target"] {
        fs::create_dir(at(name)).unwrap();
        if name != "target" {
            symlink(at("target"), at(name).join("link")).unwrap();
        }
    }
    assert!(Directory::open(&at("ours/link")).is_ok());
    assert!(trusted(&at("ours/link")).is_ok());
    fs::set_permissions(at("theirs"), fs::Permissions::from_mode(0o777)).unwrap();
    let error = format!("{:#}", Directory::open(&at("theirs/link")).unwrap_err());
    assert!(error.contains("theirs/link is a link that others"), "{error}");
    fs::write(at("theirs/file"), "").unwrap();
    let error = format!("{:#}", trusted(&at("theirs/file")).unwrap_err());
    assert!(error.contains("others can change") && error.contains("theirs,"), "{error}");
    // Beneath a directory, no link is followed.
    let open = Directory::open(place.path()).unwrap();
    assert!(open.below(Path::new("ours/link")).is_err() && open.below(Path::new("ours")).is_ok());
    assert!(open.below(Path::new("../x")).is_err() && open.below(Path::new("/etc")).is_err());
    if is_root() {
        chown(at("ours"), Some(65534), None).unwrap();
        assert!(Directory::open(&at("ours/link")).is_err());
    }
}

/// The lookup without openat2(2) gives the same results.
#[test]
fn lookups_without_openat2_are_the_same() {
    let (place, open) = place();
    fs::create_dir_all(place.path().join("a/b")).unwrap();
    symlink("b", place.path().join("a/link")).unwrap();
    let by_steps = |path: &str| {
        let fd = open.again().unwrap().fd;
        open::by_steps(fd, Path::new(path), OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::DIRECTORY)
            .is_ok()
    };
    for (path, expected) in [
        ("a/b", true),
        ("a", true),
        ("a/link", false),
        ("a/../a", false),
        ("/etc", false),
        ("a/link/x", false),
        ("", false),
    ] {
        assert_eq!(by_steps(path), expected, "{path}");
        assert_eq!(
            openat(&open, Path::new(path), OFlags::RDONLY | OFlags::DIRECTORY).is_ok(),
            expected,
            "{path}"
        );
    }
}

#[test]
fn only_a_regular_file_of_limited_size_is_read() {
    let (place, open) = place();
    fs::write(place.path().join("file"), "12345").unwrap();
    symlink("file", place.path().join("link")).unwrap();
    symlink("/dev/zero", place.path().join("zero")).unwrap();
    rustix::fs::mknodat(&open, "pipe", FileType::Fifo, Mode::RWXU, 0).unwrap();
    assert_eq!(open.read(Path::new("file"), 5).unwrap(), b"12345");
    for (name, words) in [
        ("file", "more than 4 bytes"),
        ("link", "cannot read"),
        ("zero", "cannot read"),
        ("pipe", "not a regular file"),
        ("", "cannot read"),
    ] {
        let error = format!("{:#}", open.read(Path::new(name), 4).unwrap_err());
        assert!(error.contains(words), "{name}: {error}");
    }
    assert!(super::read(&place.path().join("file"), 5).is_ok());
}

#[test]
fn nothing_is_created_under_an_existing_name() {
    let (place, open) = place();
    symlink("/nowhere", place.path().join("link")).unwrap();
    fs::write(place.path().join("file"), "").unwrap();
    for name in ["link", "file", "..", ".", "", "a/b"] {
        assert!(open.make(OsStr::new(name), 0o700).is_err(), "{name}");
        assert!(open.create(OsStr::new(name), 0o600).is_err(), "{name}");
    }
    let new = open.make(OsStr::new("new"), 0o2750).unwrap();
    assert_eq!(new.stat().unwrap().st_mode & 0o7777, 0o2750);
    open.create(OsStr::new("one"), 0o600).unwrap();
    assert!(open.rename(OsStr::new("one"), &new, OsStr::new("two")).is_ok());
    open.create(OsStr::new("one"), 0o600).unwrap();
    assert!(open.rename(OsStr::new("one"), &new, OsStr::new("two")).is_err());
    open.replace(OsStr::new("link"), b"text", 0o640).unwrap();
    assert_eq!(fs::read(place.path().join("link")).unwrap(), b"text");
    assert_eq!(open.entries().unwrap().len(), 4);
}

#[test]
fn missing_directories_are_created_like_those_of_the_model() {
    let (place, open) = place();
    fs::create_dir_all(place.path().join("model/a/b")).unwrap();
    fs::set_permissions(place.path().join("model/a"), fs::Permissions::from_mode(0o2751)).unwrap();
    let made = open.make(OsStr::new("made"), 0o700).unwrap();
    made.make_all(Path::new("a/b/c"), Some(&open.below(Path::new("model")).unwrap())).unwrap();
    let mode =
        |path: &str| fs::metadata(place.path().join(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!(
        (mode("made/a"), mode("made/a/b"), mode("made/a/b/c")),
        (0o2751, mode("model/a/b"), 0o700)
    );
}

#[test]
fn links_and_hard_links_are_not_given_away() {
    let (place, open) = place();
    let (uid, gid) = if is_root() {
        (65534, 65534)
    } else {
        (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw())
    };
    fs::create_dir_all(place.path().join("d/e")).unwrap();
    fs::write(place.path().join("d/e/file"), "").unwrap();
    let given = open.below(Path::new("d")).unwrap();
    given.give(uid, gid).unwrap();
    for name in ["d/e/file", "d/e", "d"] {
        let stat = open.look(Path::new(name)).unwrap().unwrap();
        assert_eq!((stat.st_uid, stat.st_gid), (uid, gid), "{name}");
    }
    symlink("/etc", place.path().join("d/link")).unwrap();
    assert!(given.give(uid, gid).is_err());
    fs::remove_file(place.path().join("d/link")).unwrap();
    fs::write(place.path().join("elsewhere"), "").unwrap();
    fs::hard_link(place.path().join("elsewhere"), place.path().join("d/hard")).unwrap();
    assert!(given.give(uid, gid).is_err());
}

/// The tree is deeper than the stack or the limit of open files allows, and wide.
#[test]
fn a_tree_of_any_depth_is_removed() {
    let (place, open) = place();
    open.make(OsStr::new("tree"), 0o700).unwrap();
    let mut here = open.below(Path::new("tree")).unwrap();
    // More levels than the usual limit of open files, 1,024.
    for level in 0..1100 {
        here.create(OsStr::new("file"), 0o600).unwrap();
        if level % 100 == 0 {
            here.make(OsStr::new("side"), 0o700).unwrap().create(OsStr::new("x"), 0o600).unwrap();
        }
        here = here.make(OsStr::new("d"), 0o700).unwrap();
    }
    symlink("/etc", place.path().join("tree/link")).unwrap();
    drop(here);
    open.remove(OsStr::new("tree")).unwrap();
    open.remove(OsStr::new("tree")).unwrap();
    symlink(place.path(), place.path().join("link")).unwrap();
    open.remove(OsStr::new("link")).unwrap();
    assert!(open.entries().unwrap().is_empty());
    fs::create_dir_all(place.path().join("e/m/p")).unwrap();
    fs::create_dir_all(place.path().join("e/n")).unwrap();
    open.remove_empty(OsStr::new("e")).unwrap();
    open.remove_empty(OsStr::new("e")).unwrap();
    fs::create_dir_all(place.path().join("e/m/p")).unwrap();
    fs::write(place.path().join("e/m/file"), "").unwrap();
    assert!(open.remove_empty(OsStr::new("e")).is_err());
    assert!(place.path().join("e/m/file").exists());
}

/// A process that has a directory open continues to create files in it for a while.
#[test]
fn a_directory_is_removed_although_a_process_still_writes_to_it() {
    let (_place, open) = place();
    for inside in ["tree", "tree/below"] {
        open.make(OsStr::new("tree"), 0o700).unwrap().make(OsStr::new("below"), 0o700).unwrap();
        let writers: Vec<Directory> =
            (0..4).map(|_| open.below(Path::new(inside)).unwrap()).collect();
        std::thread::scope(|scope| {
            for (writer, held) in writers.iter().enumerate() {
                scope.spawn(move || {
                    let began = std::time::Instant::now();
                    for number in 0.. {
                        let made = held.create(OsStr::new(&format!("{writer}-{number}")), 0o600);
                        if made.is_err() || began.elapsed() > std::time::Duration::from_millis(500)
                        {
                            break;
                        }
                    }
                });
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
            open.remove(OsStr::new("tree")).unwrap();
        });
        assert!(open.entries().unwrap().is_empty(), "{inside}");
    }
}
