//! Snapshot → directory. The library neither returns all errors nor says whether it has applied all
//! metadata, so the result is compared with the snapshot afterwards.
//!
//! The library extracts to whatever path an archive names. Therefore all names are checked before
//! anything is written ([`super::names`]): every path is beneath the target, and none leads through
//! a link. Owners, set-user-ID bits and devices are restored as they were: in this the archive is
//! trusted like everybody who has its password.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rayon::prelude::*;
use rustic_core::repofile::{Node, NodeType};
use rustic_core::{
    IndexedFullStatus, LocalDestination, LsOptions, Repository, RestoreOptions, RusticResult,
};

use rustix::thread::CapabilitySet;

use super::compare::{Accounts, AttributeDifferences, compare};
use super::links::Links;
use super::names;
use super::node::Listed;
use super::plain;

/// Extracts `paths` of the snapshot (everything if there are none) below `target`, with the
/// directories above them.
pub(super) fn extract(
    repository: &Repository<IndexedFullStatus>,
    snapshot: &str,
    target: &Path,
    paths: &[PathBuf],
) -> Result<()> {
    let root = repository
        .node_from_snapshot_path(snapshot, |_| true)
        .map_err(plain)
        .context("there is no such snapshot")?;
    let heads = heads(repository, &root, snapshot, paths)?;
    let left_out = RefCell::new(BTreeSet::new());
    let makes_devices = rustix::thread::capabilities(None)
        .is_ok_and(|sets| sets.effective.contains(CapabilitySet::MKNOD));
    // Older runs have devices. If this process may not create them, everything else is extracted.
    let can_be_made = |entry: &RusticResult<Listed>| match entry {
        Ok((path, node)) if !makes_devices && is_device(node) => {
            if left_out.borrow_mut().insert(path.clone()) {
                tracing::warn!(
                    "/{} is a device, which cannot be made here: left out ('mknod' makes it)",
                    path.display()
                );
            }
            false
        }
        _ => true,
    };
    let links = Links::default();
    let listing = Listing::of(HELD, || {
        let entries = names::checked(walk(repository, &root, &heads)?, target.as_os_str().len())
            .filter(can_be_made);
        Ok(Box::new(entries.map(|entry| links.separate(entry))) as Entries<'_>)
    })?;
    let destination =
        target.to_str().with_context(|| format!("{} is not UTF-8", target.display()))?;
    let destination =
        LocalDestination::new(&format!("{destination}/"), true, false).map_err(plain)?;
    let mut options = RestoreOptions::default();
    // The library does not export the type of this value, but reads it.
    options.sparse = serde_json::from_str("\"ByContent\"")?;
    let plan = repository
        .prepare_restore(&options, listing.entries()?, &destination, false)
        .map_err(plain)?;
    repository.restore(plan, &options, listing.entries()?, &destination).map_err(plain)?;
    compare_all(listing.entries()?, target)
}

/// Compares every extracted file with its entry. Fails with the first that differs; attributes that
/// differ are a warning.
fn compare_all(mut entries: Entries<'_>, target: &Path) -> Result<()> {
    let (accounts, attributes) = (Accounts::default(), AttributeDifferences::default());
    loop {
        let batch: Vec<Listed> =
            entries.by_ref().take(AT_ONCE).collect::<RusticResult<_>>().map_err(plain)?;
        if batch.is_empty() {
            attributes.warn();
            return Ok(());
        }
        batch.par_iter().try_for_each(|(path, node)| {
            let extracted = target.join(path);
            compare(&extracted, node, &accounts)
                .and_then(|()| attributes.compare(path, &extracted, node))
                .with_context(|| format!("/{} was not restored as it was", path.display()))
        })?;
    }
}

/// Whether creating it needs CAP_MKNOD, mknod(2): every device except the one (0:0) with which
/// overlayfs marks deleted files.
fn is_device(node: &Node) -> bool {
    match node.node_type {
        NodeType::Dev { .. } => true,
        NodeType::Chardev { device } => device != 0,
        _ => false,
    }
}

type Entries<'a> = Box<dyn Iterator<Item = RusticResult<Listed>> + 'a>;

/// How many entries are compared in parallel.
const AT_ONCE: usize = 4096;
/// How many entries are held in memory, at about 500 bytes each. A longer listing is read from the
/// repository each of the three times that it is needed.
const HELD: usize = 200_000;

/// Everything to extract, in the order of a walk.
struct Listing<W> {
    walk: W,
    held: Option<Vec<Listed>>,
}

impl<'a, W: Fn() -> Result<Entries<'a>>> Listing<W> {
    /// Walks to the end, so that every error in the listing is found. Holds the entries if there
    /// are at most `most`.
    fn of(most: usize, walk: W) -> Result<Self> {
        let mut held = Some(Vec::new());
        for entry in walk()? {
            let entry = entry.map_err(plain).context("the snapshot cannot be listed")?;
            match &mut held {
                Some(entries) if entries.len() < most => entries.push(entry),
                held => *held = None,
            }
        }
        Ok(Self { walk, held })
    }

    fn entries<'s>(&'s self) -> Result<Entries<'s>>
    where
        'a: 's,
    {
        match &self.held {
            Some(held) => Ok(Box::new(held.iter().cloned().map(Ok))),
            None => (self.walk)(),
        }
    }
}

/// Lists the heads and what is below them, or everything if there are none.
fn walk<'a>(
    repository: &'a Repository<IndexedFullStatus>,
    root: &'a Node,
    heads: &'a [Head],
) -> Result<Entries<'a>> {
    let options = LsOptions::default();
    if heads.is_empty() {
        return Ok(Box::new(
            repository
                .ls(root, &options)
                .map_err(plain)
                .context("the snapshot cannot be listed")?,
        ));
    }
    let mut all: Vec<Entries<'_>> = Vec::new();
    for Head { path, node, wanted } in heads {
        all.push(Box::new(std::iter::once(Ok((path.clone(), node.clone())))));
        if *wanted && node.is_dir() {
            let below = repository
                .ls(node, &options)
                .map_err(plain)
                .context("the snapshot cannot be listed")?;
            all.push(Box::new(
                below.map(move |entry| entry.map(|(below, node)| (path.join(below), node))),
            ));
        }
    }
    Ok(Box::new(all.into_iter().flatten()))
}

/// A requested path, or a directory above one.
struct Head {
    path: PathBuf,
    node: Node,
    /// It is requested itself.
    wanted: bool,
}

/// Finds `paths` and the directories above them, in the order of a walk. Each is looked up by its
/// path, because a walk would read the tree of every directory in the run.
fn heads(
    repository: &Repository<IndexedFullStatus>,
    root: &Node,
    snapshot: &str,
    paths: &[PathBuf],
) -> Result<Vec<Head>> {
    let mut wanted: Vec<&Path> =
        paths.iter().map(|path| path.strip_prefix("/").unwrap_or(path)).collect();
    wanted.sort();
    let mut heads: Vec<Head> = Vec::new();
    for path in wanted {
        if heads.iter().any(|head| head.wanted && path.starts_with(&head.path)) {
            continue;
        }
        let mut above: Vec<&Path> =
            path.ancestors().filter(|above| !above.as_os_str().is_empty()).collect();
        above.reverse();
        for above in above {
            if heads.iter().any(|head| head.path == above) {
                continue;
            }
            let tree = root.subtree.context("the snapshot is empty")?;
            let node = repository.node_from_path(tree, above).map_err(plain);
            let node =
                node.with_context(|| format!("/{} is not in snapshot {snapshot}", path.display()))?;
            // The library would also descend into a file that has entries below it.
            ensure!(
                above == path || node.is_dir(),
                "/{} is not a directory in snapshot {snapshot}",
                above.display()
            );
            heads.push(Head { path: above.to_owned(), node, wanted: above == path });
        }
    }
    Ok(heads)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_listing_that_is_too_long_to_hold_is_walked_again() {
        let walks = Cell::new(0);
        let five = || -> Result<Entries<'_>> {
            walks.set(walks.get() + 1);
            Ok(Box::new((0..5).map(|n| Ok((PathBuf::from(n.to_string()), Node::default())))))
        };
        for (most, expected) in [(5, 1), (4, 3), (0, 3)] {
            walks.set(0);
            let listing = Listing::of(most, five).unwrap();
            for _ in 0..2 {
                let names: Vec<_> =
                    listing.entries().unwrap().map(|entry| entry.unwrap().0).collect();
                assert_eq!(names, ["0", "1", "2", "3", "4"].map(PathBuf::from));
            }
            assert_eq!(walks.get(), expected, "{most}");
        }
    }
}
