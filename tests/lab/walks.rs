//! Compares the window's walk with a bare parallel stat(2) of every entry. Prints how long both
//! take when nothing changed and nothing else runs, and how long it takes to read what the first
//! pass saw.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::print_stdout, missing_docs)]

use std::fs;
use std::path::Path;
use std::time::Instant;

use gitlab_backup::frozen::{At, Exclude, View, Walk, settled};
use gitlab_backup::host::clock::HostClock;
use rayon::prelude::*;

fn walk(directory: &Path) -> usize {
    let entries: Vec<_> = fs::read_dir(directory).unwrap().map(Result::unwrap).collect();
    entries
        .into_par_iter()
        .map(|entry| match entry.metadata().unwrap().is_dir() {
            true => 1 + walk(&entry.path()),
            false => 1,
        })
        .sum()
}

/// The duration of the fastest of five calls, in seconds.
fn quickest(mut what: impl FnMut()) -> f64 {
    let seconds = (0..5).map(|_| {
        let started = Instant::now();
        what();
        started.elapsed().as_secs_f64()
    });
    seconds.fold(f64::INFINITY, f64::min)
}

fn main() {
    let root = std::env::args().nth(1).unwrap();
    let root = Path::new(&root);
    rayon::ThreadPoolBuilder::new().num_threads(8).build_global().unwrap();
    let exclude = Exclude::new(&[]).unwrap();
    let first = Walk::new(&exclude)
        .while_files_change(settled(root, &HostClock).unwrap())
        .root(root, &At::itself(root), None)
        .unwrap();
    let directory = tempfile::tempdir().unwrap();
    let saved = directory.path().join("seen");
    View { roots: vec![first] }.save(&saved).unwrap();
    let read = || View::load(&saved).unwrap().unwrap().roots.remove(0).tree;

    let entries = walk(root);
    let bare = quickest(|| assert_eq!(walk(root), entries));
    let reading = quickest(|| drop(read()));
    let mut seen: Vec<_> = (0..5).map(|_| read()).collect();
    let ours = quickest(|| {
        drop(Walk::new(&exclude).root(root, &At::itself(root), seen.pop().as_ref()).unwrap())
    });
    println!(
        "{entries} entries: a bare parallel stat walk {bare:.3} s; the window's walk {ours:.3} s, \
         {:.2} times; reading what the first pass saw {reading:.3} s",
        ours / bare
    );
}
