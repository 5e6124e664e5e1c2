//! Finds the Git repositories of a stored part by the names that every repository has, and checks
//! them one by one.
//!
//! The repositories are untrusted. Git runs confined, on a copy that has only the data to check
//! (objects, references) and nothing that Git obeys: no configuration, hooks, `commondir`,
//! worktrees, grafts or attributes.

mod checker;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::repository::Engine;
use crate::runs::Part;

pub(super) use checker::{GitChecker, program};

/// Lists the Git repositories of a part: the directories that have the subdirectories `objects` and
/// `refs`, or entries of any type named `objects`, `refs` and `HEAD`.
pub(super) fn list_repositories(engine: &dyn Engine, part: &Part) -> Result<Vec<PathBuf>> {
    let mut found = Found::default();
    engine.list(&part.snapshot, &mut |path, size| found.add(path, size.is_none()))?;
    Ok(found.repositories())
}

/// Directories that have at least one of the names of a repository.
#[derive(Default)]
struct Found {
    /// Those with the subdirectory `objects`, and those with `refs`.
    directories: [BTreeSet<PathBuf>; 2],
    /// Those with an entry of any type named `objects`, `refs` or `HEAD`. A repository in which one
    /// is a link is damaged, and must be checked to be reported.
    names: [BTreeSet<PathBuf>; 3],
}

impl Found {
    fn add(&mut self, path: &Path, is_directory: bool) {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return };
        let Some(index) = ["objects", "refs", "HEAD"].iter().position(|known| name == *known)
        else {
            return;
        };
        self.names[index].insert(parent.to_owned());
        if let Some(directories) = self.directories.get_mut(index).filter(|_| is_directory) {
            directories.insert(parent.to_owned());
        }
    }

    fn repositories(self) -> Vec<PathBuf> {
        let [objects, refs] = self.directories;
        let [any_objects, any_refs, heads] = self.names;
        let named =
            any_objects.intersection(&any_refs).filter(|path| heads.contains(*path)).cloned();
        let all: BTreeSet<PathBuf> = objects.intersection(&refs).cloned().chain(named).collect();
        all.into_iter().collect()
    }
}

/// At most `count` of `all`, evenly spread; all of them without a count.
pub(super) fn sample(all: &[PathBuf], count: Option<usize>) -> impl Iterator<Item = &PathBuf> {
    let step = count.map_or(1, |count| all.len().div_ceil(count.max(1)).max(1));
    all.iter().step_by(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_spread_over_all() {
        let all: Vec<PathBuf> = (0..10).map(|number| PathBuf::from(number.to_string())).collect();
        let taken = |count| {
            sample(&all, count).map(|path| path.display().to_string()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(taken(Some(3)), "0 4 8");
        assert_eq!(taken(Some(20)), "0 1 2 3 4 5 6 7 8 9");
        assert_eq!(taken(None), "0 1 2 3 4 5 6 7 8 9");
    }

    #[test]
    fn a_repository_is_found_also_where_a_part_of_it_is_a_link() {
        let mut found = Found::default();
        for path in ["/a.git/objects", "/a.git/refs", "/b.git/refs", "/c/refs"] {
            found.add(Path::new(path), true);
        }
        for path in ["/b.git/objects", "/b.git/HEAD", "/c/objects", "/d/HEAD"] {
            found.add(Path::new(path), false);
        }
        assert_eq!(found.repositories(), ["/a.git", "/b.git"].map(PathBuf::from));
    }
}
