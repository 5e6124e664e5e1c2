use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};

use super::*;
use crate::runs::restore::Places;

/// Creates old and new data, and the layout to replace one by the other.
fn place(mount: bool) -> (tempfile::TempDir, StagingLayout) {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let data = path("data");
    for (name, content) in [("data/both", "old"), ("data/only old", "old"), ("data/d/x", "old")] {
        fs::create_dir_all(path(name).parent().unwrap()).unwrap();
        fs::write(path(name), content).unwrap();
    }
    let mut places = Places::planned(directory.path()).unwrap();
    places.make().unwrap();
    let layout = StagingLayout {
        places,
        kept: path("kept"),
        roots: vec![
            Root { path: data.clone(), mount },
            Root { path: path("gone/deep/file"), mount: false },
        ],
    };
    let staged = &layout.places.staged.path;
    for (name, content) in [("both", "new"), ("only new", "new"), ("d/x", "new")] {
        let path = staged.join(below(&data)).join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    let file = staged.join(below(&path("gone/deep/file")));
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, "new").unwrap();
    (directory, layout)
}

/// If old data is gone, the put-back is refused before it moves anything.
#[test]
fn missing_old_data_is_found_before_anything_is_put_back() {
    for mount in [false, true] {
        let (directory, layout) = place(mount);
        let data = directory.path().join("data");
        let (moves, old) = ([plan(&layout).unwrap()], tree(&data));
        prove(&moves).unwrap();
        forward(&moves).unwrap();
        prove(&moves).unwrap();
        let aside = layout.places.aside.path.join(below(&data));
        fs::rename(aside.join("both"), directory.path().join("both")).unwrap();
        if mount {
            assert!(
                format!("{:#}", prove(&moves).unwrap_err()).contains("is gone from"),
                "mount {mount}"
            );
        }
        fs::rename(directory.path().join("both"), aside.join("both")).unwrap();
        prove(&moves).unwrap();
        fs::rename(&layout.places.aside.path, directory.path().join("elsewhere")).unwrap();
        assert!(format!("{:#}", prove(&moves).unwrap_err()).contains("is gone"), "mount {mount}");
        fs::rename(directory.path().join("elsewhere"), &layout.places.aside.path).unwrap();
        backward(&moves).unwrap();
        prove(&moves).unwrap();
        assert_eq!(tree(&data), old);
    }
}

fn tree(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    for entry in fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_owned();
        if path.is_dir() {
            lines.extend(tree(&path).into_iter().map(|line| format!("{}/{line}", name.display())));
        } else {
            lines.push(format!("{}={}", name.display(), fs::read_to_string(path).unwrap()));
        }
    }
    lines.sort();
    lines
}

/// The process may be killed after any number of renames.
#[test]
fn after_any_kill_the_renames_can_be_completed_or_undone() {
    for mount in [false, true] {
        let renames = {
            let (_directory, layout) = place(mount);
            let moves = plan(&layout).unwrap();
            moves
                .steps
                .iter()
                .map(|step| usize::from(step.new) + usize::from(step.old))
                .sum::<usize>()
        };
        assert_eq!(renames, if mount { 7 } else { 3 });
        for killed_after in 0..=renames {
            for back in [false, true] {
                let (directory, layout) = place(mount);
                let data = directory.path().join("data");
                let (old, new) = (tree(&data), tree(&layout.places.staged.path.join(below(&data))));
                let moves = [plan(&layout).unwrap()];
                partly(&moves[0], killed_after);
                if back {
                    backward(&moves).unwrap();
                    assert_eq!(tree(&data), old, "mount {mount}, killed after {killed_after}");
                    assert!(!directory.path().join("gone/deep/file").exists());
                    assert_eq!(tree(&layout.places.staged.path.join(below(&data))), new);
                    backward(&moves).unwrap();
                }
                forward(&moves).unwrap();
                forward(&moves).unwrap();
                assert_eq!(
                    tree(&data),
                    new,
                    "mount {mount}, killed after {killed_after}, back {back}"
                );
                assert_eq!(tree(&directory.path().join("gone")), ["deep/file=new"]);
                assert_eq!(tree(&layout.places.aside.path.join(below(&data))), old);
            }
        }
    }
}

/// Does the first `count` renames of `moves`.
fn partly(moves: &Moves, mut count: usize) {
    for step in &moves.steps {
        let (staged, aside) = (
            moves.places.staged.path.join(&step.inside),
            moves.places.aside.path.join(&step.inside),
        );
        for (from, to) in
            [step.old.then_some((&step.live, &aside)), step.new.then_some((&staged, &step.live))]
                .into_iter()
                .flatten()
        {
            if count == 0 {
                return;
            }
            count -= 1;
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::rename(from, to).unwrap();
        }
    }
}

#[test]
fn paths_that_only_the_live_data_has_are_listed() {
    let (directory, layout) = place(false);
    let data = directory.path().join("data");
    fs::create_dir(data.join("only new")).unwrap();
    fs::write(data.join("only new/inside"), "").unwrap();
    let mut found = list_only_live(&data, &layout.places.staged).unwrap();
    found.sort();
    assert_eq!(found, [data.join("only new"), data.join("only old")]);
}

/// The owner of the live data replaces a directory above it with a link, between the plan and the
/// renames.
#[test]
fn no_rename_follows_a_link_of_another_user() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    for name in ["theirs/inner", "roots/data"] {
        fs::create_dir_all(at(name)).unwrap();
    }
    fs::write(at("theirs/inner/data"), "live").unwrap();
    let mut places = Places::planned(directory.path()).unwrap();
    places.make().unwrap();
    let live = at("theirs/inner/data");
    let laid = places.staged.path.join(below(&live));
    fs::create_dir_all(laid.parent().unwrap()).unwrap();
    fs::write(&laid, "new").unwrap();
    fs::set_permissions(at("theirs"), fs::Permissions::from_mode(0o777)).unwrap();
    if rustix::process::geteuid().is_root() {
        chown(at("theirs"), Some(65534), None).unwrap();
    }
    let layout =
        StagingLayout { places, kept: at("kept"), roots: vec![Root { path: live, mount: false }] };
    let moves = [plan(&layout).unwrap()];
    fs::rename(at("theirs/inner"), at("theirs/away")).unwrap();
    symlink(at("roots"), at("theirs/inner")).unwrap();
    let error = format!("{:#}", forward(&moves).unwrap_err());
    assert!(error.contains("is a link that others"), "{error}");
    assert!(at("roots/data").is_dir() && laid.exists());
    fs::remove_file(at("theirs/inner")).unwrap();
    fs::rename(at("theirs/away"), at("theirs/inner")).unwrap();
    // A forged staged directory is not put in place either.
    let staged = &layout.places.staged.path;
    fs::rename(staged, at("stolen")).unwrap();
    fs::create_dir_all(laid.parent().unwrap()).unwrap();
    fs::write(&laid, "forged").unwrap();
    let error = format!("{:#}", forward(&moves).unwrap_err());
    assert!(error.contains("is not the directory that was made there"), "{error}");
    assert_eq!(fs::read_to_string(at("theirs/inner/data")).unwrap(), "live");
}

/// The owner of the directory above creates something in the way as soon as the name is free.
#[test]
fn what_is_put_in_the_way_is_moved_aside() {
    let (directory, layout) = place(false);
    let data = directory.path().join("data");
    let before = tree(&data);
    let moves = [plan(&layout).unwrap()];
    let going = std::sync::atomic::AtomicBool::new(true);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while going.load(std::sync::atomic::Ordering::Relaxed) {
                    let _ = fs::create_dir(&data);
                }
            });
        }
        let played = std::panic::catch_unwind(|| {
            for _ in 0..50 {
                forward(&moves).unwrap();
                assert_eq!(fs::read_to_string(data.join("both")).unwrap(), "new");
                backward(&moves).unwrap();
                assert_eq!(tree(&data), before);
            }
        });
        going.store(false, std::sync::atomic::Ordering::Relaxed);
        played.unwrap();
    });
    layout.places.aside.remove_empty().unwrap();
    layout.places.staged.remove().unwrap();
}

/// A process is killed right after the exchange.
#[test]
fn an_exchange_is_not_done_twice() {
    use std::os::unix::fs::MetadataExt;

    let (directory, layout) = place(false);
    let data = directory.path().join("data");
    let moves = [plan(&layout).unwrap()];
    forward(&moves).unwrap();
    let aside = layout.places.aside.path.join(below(&data));
    let staged = &layout.places.staged.path;
    let inode = |path: &Path| fs::metadata(path).unwrap().ino();
    // In `backward`: the new data is staged, the old data is live, the other user's directory is
    // aside.
    fs::rename(&data, staged.join(below(&data))).unwrap();
    fs::write(
        staged.join(format!("placing-{}-{}", inode(&layout.places.aside.path), inode(&aside))),
        "",
    )
    .unwrap();
    fs::rename(&aside, &data).unwrap();
    fs::create_dir(&aside).unwrap();
    backward(&moves).unwrap();
    assert_eq!(fs::read_to_string(data.join("only old")).unwrap(), "old");
    assert!(!aside.exists());
    // The restore can still be repeated.
    forward(&moves).unwrap();
    assert_eq!(fs::read_to_string(data.join("both")).unwrap(), "new");
    assert_eq!(fs::read_to_string(aside.join("only old")).unwrap(), "old");
}
