//! What the window's walk is measured against: nothing but a parallel stat(2) of every entry. Prints how many and in how many seconds.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::path::Path;
use std::time::Instant;

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

fn main() {
    let root = std::env::args().nth(1).unwrap();
    rayon::ThreadPoolBuilder::new().num_threads(8).build_global().unwrap();
    let started = Instant::now();
    let count = walk(Path::new(&root));
    println!("{count} {:.3}", started.elapsed().as_secs_f64());
}
