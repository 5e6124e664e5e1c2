//! Where a repository's objects are besides its own directory: `objects/info/alternates`, gitrepository-layout(5), as text of another.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Result, ensure};
use rustix::fs::FileType;

use crate::host::beneath::Directory;
use crate::host::text;

/// Bytes of such a file: a pool and a few more take some hundred.
pub const LONGEST: u64 = 64 << 10;

/// The directories that `content`, the alternates of the object directory `objects`, names: in the snapshot, and nowhere else.
///
/// # Errors
/// If one is not beneath `roots`, what the snapshot is of.
pub fn named(objects: &Path, content: &[u8], roots: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut stores = Vec::new();
    for line in content.split(|byte| *byte == b'\n').filter(|line| !line.is_empty() && !line.starts_with(b"#")) {
        ensure!(!line.starts_with(b"\"") && !line.contains(&0), "its alternate {} is quoted, as GitLab writes none", text::bytes(line));
        let store = normalised(&objects.join(OsStr::from_bytes(line)));
        let within = roots.iter().any(|root| store.starts_with(root));
        ensure!(within, "its alternate {} is {}, which is not among the files of the run", text::bytes(line), text::path(&store));
        stores.push(store);
    }
    Ok(stores)
}

/// Without `..`, as text: what it means in the snapshot, not on this host.
fn normalised(path: &Path) -> PathBuf {
    let mut whole = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                whole.pop();
            }
            Component::CurDir => {}
            other => whole.push(other),
        }
    }
    whole
}

/// The object directories that repositories at or below `path` need besides their own, all of which is laid out in `top` as it is in the snapshot,
/// and which are not there.
///
/// # Errors
/// If what is laid out cannot be read, or one needs what the snapshot does not have.
pub fn missing(top: &Directory, path: &Path, roots: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let inside = |path: &Path| path.strip_prefix("/").unwrap_or(path).to_owned();
    let start = inside(path);
    let is_directory = top.look(&start)?.is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory);
    let mut open: Vec<PathBuf> = is_directory.then_some(start).into_iter().collect();
    let mut wanted = BTreeSet::new();
    while let Some(next) = open.pop() {
        let directory = top.below(&next)?;
        let found = Path::new("objects/info/alternates");
        let regular = |stat: rustix::fs::Stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        if directory.look(found)?.is_some_and(regular) {
            let content = directory.read(found, LONGEST)?;
            wanted.extend(named(&Path::new("/").join(&next).join("objects"), &content, roots)?);
        }
        for (name, kind) in directory.entries()? {
            if kind == FileType::Directory && name != "objects" {
                open.push(next.join(name));
            }
        }
    }
    let mut missing = Vec::new();
    for store in wanted {
        if top.look(&inside(&store))?.is_none() {
            missing.push(store);
        }
    }
    Ok(missing)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_pool_is_found_from_its_fork_and_nothing_outside() {
        let roots = [PathBuf::from("/r")];
        let named = |content: &[u8]| named(Path::new("/r/@hashed/a/b.git/objects"), content, &roots).map_err(|error| error.to_string());
        assert_eq!(named(b"../../../@pools/c.git/objects\n"), Ok(vec![PathBuf::from("/r/@hashed/@pools/c.git/objects")]));
        assert_eq!(named(b"# x\n/r/x/objects"), Ok(vec![PathBuf::from("/r/x/objects")]));
        for outside in [&b"../../../../../../etc"[..], b"/etc", b"/r/../etc", b"/rr/objects", b"\"/r/x\"", b"/r/\0x"] {
            named(outside).unwrap_err();
        }
    }
}
