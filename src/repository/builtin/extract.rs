//! Snapshot → directory. The library tells neither all errors nor whether it applied what it read, so the result is looked at afterwards.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::{Group, User};
use rustic_core::repofile::{Node, NodeType};
use rustic_core::{IndexedFullStatus, LocalDestination, LsOptions, Repository, RestoreOptions, RusticResult};

use super::plain;

/// Lays `paths` of the snapshot (everything if there are none) out below `target`, with the directories above them.
pub(super) fn extract(repository: &Repository<IndexedFullStatus>, snapshot: &str, target: &Path, paths: &[PathBuf]) -> Result<()> {
    let root = repository.node_from_snapshot_path(snapshot, |_| true).map_err(plain).context("there is no such snapshot")?;
    let heads = heads(repository, &root, snapshot, paths)?;
    let options = LsOptions::default();
    let entries = || -> Result<Entries<'_>> {
        if paths.is_empty() {
            return Ok(Box::new(repository.ls(&root, &options).map_err(plain).context("the snapshot cannot be listed")?));
        }
        let mut all: Vec<Entries<'_>> = Vec::new();
        for Head { path, node, wanted } in &heads {
            all.push(Box::new(std::iter::once(Ok((path.clone(), node.clone())))));
            if *wanted && node.is_dir() {
                let below = repository.ls(node, &options).map_err(plain).context("the snapshot cannot be listed")?;
                all.push(Box::new(below.map(move |entry| entry.map(|(below, node)| (path.join(below), node)))));
            }
        }
        Ok(Box::new(all.into_iter().flatten()))
    };
    let destination = target.to_str().with_context(|| format!("{} is not UTF-8", target.display()))?;
    let destination = LocalDestination::new(&format!("{destination}/"), true, false).map_err(plain)?;
    let mut options = RestoreOptions::default();
    // The library does not export the type of this value, but reads it.
    options.sparse = serde_json::from_str("\"ByContent\"")?;
    let plan = repository.prepare_restore(&options, entries()?, &destination, false).map_err(plain)?;
    repository.restore(plan, &options, entries()?, &destination).map_err(plain)?;
    for entry in entries()? {
        let (path, node) = entry.map_err(plain)?;
        compare(&target.join(&path), &node).with_context(|| format!("/{} was not restored as it was", path.display()))?;
    }
    Ok(())
}

type Entries<'a> = Box<dyn Iterator<Item = RusticResult<(PathBuf, Node)>> + 'a>;

/// Something that is asked for, or a directory above it.
struct Head {
    path: PathBuf,
    node: Node,
    wanted: bool,
}

/// Finds `paths` and the directories above them, in the order of a walk. Looked up and not walked to: a run has a tree for every directory, and
/// the library reads each as often as it walks.
fn heads(repository: &Repository<IndexedFullStatus>, root: &Node, snapshot: &str, paths: &[PathBuf]) -> Result<Vec<Head>> {
    let mut wanted: Vec<&Path> = paths.iter().map(|path| path.strip_prefix("/").unwrap_or(path)).collect();
    wanted.sort();
    let mut heads: Vec<Head> = Vec::new();
    for path in wanted {
        if heads.iter().any(|head| head.wanted && path.starts_with(&head.path)) {
            continue;
        }
        let mut above: Vec<&Path> = path.ancestors().filter(|above| !above.as_os_str().is_empty()).collect();
        above.reverse();
        for above in above {
            if heads.iter().any(|head| head.path == above) {
                continue;
            }
            let tree = root.subtree.context("the snapshot is empty")?;
            let node = repository.node_from_path(tree, above).map_err(plain);
            let node = node.with_context(|| format!("/{} is not in snapshot {snapshot}", path.display()))?;
            heads.push(Head { path: above.to_owned(), node, wanted: above == path });
        }
    }
    Ok(heads)
}

/// Fails with the first thing that is not as in the snapshot. The content was authenticated as it was read.
fn compare(path: &Path, node: &Node) -> Result<()> {
    let found = path.symlink_metadata().context("it is missing")?;
    let kind = found.file_type();
    let same_kind = match &node.node_type {
        NodeType::File => kind.is_file(),
        NodeType::Dir => kind.is_dir(),
        NodeType::Symlink { .. } => kind.is_symlink(),
        // Devices need rights that not everybody has; pipes and sockets hold nothing.
        _ => return Ok(()),
    };
    ensure!(same_kind, "it is of another kind");
    if kind.is_file() && found.len() != node.meta.size {
        bail!("it has {} bytes instead of {}", found.len(), node.meta.size);
    }
    if kind.is_symlink() {
        ensure!(std::fs::read_link(path)? == node.node_type.to_link(), "it points elsewhere");
        return Ok(());
    }
    let permissions = node.meta.mode.map(|mode| mode & 0o777);
    ensure!(permissions.is_none_or(|mode| mode == found.mode() & 0o777), "its mode is {:o}", found.mode());
    if rustix::process::geteuid().is_root() {
        // By name, where there is one here: on another host its number may be another.
        let user = node.meta.user.as_ref().and_then(|name| User::from_name(name).ok()?).map(|user| user.uid.as_raw());
        let group = node.meta.group.as_ref().and_then(|name| Group::from_name(name).ok()?).map(|group| group.gid.as_raw());
        let owner =
            user.or(node.meta.uid).is_none_or(|uid| uid == found.uid()) && group.or(node.meta.gid).is_none_or(|gid| gid == found.gid());
        ensure!(owner, "its owner is {}:{}", found.uid(), found.gid());
    }
    let nanoseconds = i128::from(found.mtime()) * 1_000_000_000 + i128::from(found.mtime_nsec());
    ensure!(node.meta.mtime.is_none_or(|mtime| mtime.as_nanosecond() == nanoseconds), "its time is another");
    Ok(())
}
