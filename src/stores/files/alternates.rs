//! Where a repository's objects are besides its own directory: `objects/info/alternates`,
//! gitrepository-layout(5), as text of another.

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

/// The directories that `content`, the alternates of the object directory `objects`, names: in the
/// snapshot, and nowhere else.
///
/// # Errors
/// If one is not beneath `roots`, what the snapshot is of.
pub fn named(objects: &Path, content: &[u8], roots: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut stores = Vec::new();
    for line in content
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty() && !line.starts_with(b"#"))
    {
        ensure!(
            !line.starts_with(b"\"") && !line.contains(&0),
            "its alternate {} is quoted, as GitLab writes none",
            text::bytes(line)
        );
        let store = normalised(&objects.join(OsStr::from_bytes(line)));
        let within = roots.iter().any(|root| store.starts_with(root));
        ensure!(
            within,
            "its alternate {} is {}, which is not among the files of the run",
            text::bytes(line),
            text::path(&store)
        );
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

/// What is found at or below a path that is laid out.
#[derive(Debug, Default)]
pub struct Found {
    /// The repositories.
    pub repositories: Vec<PathBuf>,
    /// The object directories that they need besides their own and that are not there.
    pub missing: Vec<PathBuf>,
    /// Of which it cannot be told what they need, or need what the snapshot does not have.
    pub wrong: Vec<String>,
}

/// Looks for repositories at or below `path`, all of which is laid out in `top` as it is in the
/// snapshot.
///
/// # Errors
/// If what is laid out cannot be read.
pub fn look(top: &Directory, path: &Path, roots: &[PathBuf]) -> Result<Found> {
    let inside = |path: &Path| path.strip_prefix("/").unwrap_or(path).to_owned();
    let start = inside(path);
    let is_directory = top
        .look(&start)?
        .is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory);
    let mut open: Vec<PathBuf> = is_directory.then_some(start).into_iter().collect();
    let (mut found, mut wanted) = (Found::default(), BTreeSet::new());
    while let Some(next) = open.pop() {
        let directory = top.below(&next)?;
        // A group may be called 'objects'.
        let has = |name: &str| directory.look(Path::new(name)).map(|found| found.is_some());
        let is_repository = has("HEAD")? && has("refs")? && has("objects")?;
        if is_repository {
            let repository = Path::new("/").join(&next);
            match needed(&directory, &repository.join("objects"), roots) {
                Ok(stores) => wanted.extend(stores),
                Err(error) => found.wrong.push(format!("{}: {error:#}", text::path(&repository))),
            }
            found.repositories.push(repository);
        }
        for (name, kind) in directory.entries()? {
            if kind == FileType::Directory && !(is_repository && name == "objects") {
                open.push(next.join(name));
            }
        }
    }
    for store in wanted {
        if top.look(&inside(&store))?.is_none() {
            found.missing.push(store);
        }
    }
    found.repositories.sort();
    Ok(found)
}

/// What the repository `directory`, whose objects are `objects` in the snapshot, needs of others.
fn needed(directory: &Directory, objects: &Path, roots: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let alternates = Path::new("objects/info/alternates");
    let Some(stat) = directory.look(alternates)? else { return Ok(Vec::new()) };
    let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    ensure!(
        is_file,
        "{} is no regular file: what the repository needs of others is not known",
        alternates.display()
    );
    named(objects, &directory.read(alternates, LONGEST)?, roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_is_found_from_its_fork_and_nothing_outside() {
        let roots = [PathBuf::from("/r")];
        let named = |content: &[u8]| {
            named(Path::new("/r/@hashed/a/b.git/objects"), content, &roots)
                .map_err(|error| error.to_string())
        };
        assert_eq!(
            named(b"../../../@pools/c.git/objects\n"),
            Ok(vec![PathBuf::from("/r/@hashed/@pools/c.git/objects")])
        );
        assert_eq!(named(b"# x\n/r/x/objects"), Ok(vec![PathBuf::from("/r/x/objects")]));
        for outside in [
            &b"../../../../../../etc"[..],
            b"/etc",
            b"/r/../etc",
            b"/rr/objects",
            b"\"/r/x\"",
            b"/r/\0x",
        ] {
            named(outside).unwrap_err();
        }
    }
}
