//! Reads `objects/info/alternates` (gitrepository-layout(5)): the object directories of other
//! repositories that a Git repository needs, such as the pool of a fork. The repository is
//! untrusted, so its paths are resolved as text and never followed on this host.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Result, ensure};
use rustix::fs::FileType;

use crate::host::beneath::Directory;
use crate::host::text;

/// The largest alternates file that is read, bytes. One pool and a few others take some hundred.
pub const LONGEST: u64 = 64 << 10;

/// Parses `content`, the alternates file of the object directory `objects`. Returns the object
/// directories that it names, as paths in the snapshot.
///
/// # Errors
/// If one of them is not below `roots`, the paths that the snapshot holds.
pub fn parse(objects: &Path, content: &[u8], roots: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut stores = Vec::new();
    for line in content
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty() && !line.starts_with(b"#"))
    {
        ensure!(
            !line.starts_with(b"\"") && !line.contains(&0),
            "its alternate {} is quoted or has a NUL byte, which GitLab never writes",
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

/// Resolves `.` and `..` as text: the path is one in the snapshot, so links on this host do not
/// count.
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

/// The Git repositories in an extracted directory.
#[derive(Debug, Default)]
pub struct FoundRepositories {
    /// Their paths in the snapshot.
    pub repositories: Vec<PathBuf>,
    /// Object directories that they need and that are not extracted.
    pub missing: Vec<PathBuf>,
    /// One line for each repository whose alternates cannot be read, or are not in the snapshot.
    pub wrong: Vec<String>,
}

/// Searches for Git repositories at or below `path`, which is extracted below `top`.
///
/// # Errors
/// If the extracted files cannot be read.
pub fn find_repositories(
    top: &Directory,
    path: &Path,
    roots: &[PathBuf],
) -> Result<FoundRepositories> {
    let inside = |path: &Path| path.strip_prefix("/").unwrap_or(path).to_owned();
    let start = inside(path);
    let is_directory = top
        .look(&start)?
        .is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory);
    let mut open: Vec<PathBuf> = is_directory.then_some(start).into_iter().collect();
    let (mut found, mut wanted) = (FoundRepositories::default(), BTreeSet::new());
    while let Some(next) = open.pop() {
        let directory = top.below(&next)?;
        // All three names are needed: a group may be called 'objects'.
        let has = |name: &str| directory.look(Path::new(name)).map(|found| found.is_some());
        let is_repository = has("HEAD")? && has("refs")? && has("objects")?;
        if is_repository {
            let repository = Path::new("/").join(&next);
            match read_alternates(&directory, &repository.join("objects"), roots) {
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

/// The object directories that the repository `directory` needs besides its own, which is `objects`
/// in the snapshot.
fn read_alternates(
    directory: &Directory,
    objects: &Path,
    roots: &[PathBuf],
) -> Result<Vec<PathBuf>> {
    let alternates = Path::new("objects/info/alternates");
    let Some(stat) = directory.look(alternates)? else { return Ok(Vec::new()) };
    let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    ensure!(
        is_file,
        "{} is not a regular file: cannot tell which objects of other repositories it needs",
        alternates.display()
    );
    parse(objects, &directory.read(alternates, LONGEST)?, roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alternates_resolve_within_the_snapshot_and_are_refused_outside() {
        let roots = [PathBuf::from("/r")];
        let named = |content: &[u8]| {
            parse(Path::new("/r/@hashed/a/b.git/objects"), content, &roots)
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
