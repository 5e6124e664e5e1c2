//! Where a repository's objects are besides its own directory: `objects/info/alternates`, gitrepository-layout(5), as text of another.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Result, ensure};

use crate::host::text;

/// Bytes of such a file: a pool and a few more take some hundred.
pub(super) const LONGEST: u64 = 64 << 10;

/// The directories that `content`, the alternates of the object directory `objects`, names: in the snapshot, and nowhere else.
///
/// # Errors
/// If one is not beneath `roots`, what the snapshot is of.
pub(super) fn named(objects: &Path, content: &[u8], roots: &[PathBuf]) -> Result<Vec<PathBuf>> {
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
