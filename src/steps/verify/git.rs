//! The Git repositories in the stored tree: found by what each has, laid out one by one, and read by Git.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::config::Config;
use crate::process;
use crate::repository::Engine;
use crate::runs::Part;
use crate::steps::extract;

/// The directories that are Git repositories: those with the two directories that each has.
pub(super) fn repositories(engine: &dyn Engine, part: &Part) -> Result<Vec<PathBuf>> {
    let (mut objects, mut refs) = (BTreeSet::new(), BTreeSet::new());
    engine.list(&part.snapshot, &mut |path, size| {
        let (None, Some(parent), Some(name)) = (size, path.parent(), path.file_name()) else { return };
        if name == "objects" {
            objects.insert(parent.to_owned());
        } else if name == "refs" {
            refs.insert(parent.to_owned());
        }
    })?;
    Ok(objects.intersection(&refs).cloned().collect())
}

/// At most `count` of `all`, spread evenly.
pub(super) fn sample(all: &[PathBuf], count: Option<usize>) -> impl Iterator<Item = &PathBuf> {
    let step = count.map_or(1, |count| all.len().div_ceil(count.max(1)).max(1));
    all.iter().step_by(step)
}

/// Has Git check the repository that the part holds at `path`.
pub(super) fn fsck(config: &Config, part: &Part, path: &Path, place: &Path) -> Result<String> {
    extract::in_child(config, &part.snapshot, place, &[path.to_owned()])?;
    let laid = place.join(path.strip_prefix("/").unwrap_or(path));
    // A fork's objects may be in a pool, which is then needed as well.
    if let Ok(alternates) = fs::read_to_string(laid.join("objects/info/alternates")) {
        for line in alternates.lines().filter(|line| !line.is_empty()) {
            let pool = normalised(&path.join("objects").join(line));
            if !place.join(pool.strip_prefix("/").unwrap_or(&pool)).exists() {
                extract::in_child(config, &part.snapshot, place, std::slice::from_ref(&pool))
                    .with_context(|| format!("its pool {}", pool.display()))?;
            }
        }
    }
    // Owned by GitLab's user: to root, Git would not read it.
    let safe = ["-c", "safe.directory=*", "-C"];
    process::run(Command::new("git").args(safe).arg(&laid).args(["fsck", "--no-dangling", "--no-progress"]))?;
    // All of them at once may be more than there is room for.
    fs::remove_dir_all(&laid).with_context(|| format!("cannot remove {}", laid.display()))?;
    Ok("git fsck is content".to_owned())
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
    use super::*;

    #[test]
    fn a_sample_is_spread_over_all() {
        let all: Vec<PathBuf> = (0..10).map(|number| PathBuf::from(number.to_string())).collect();
        let taken = |count| sample(&all, count).map(|path| path.display().to_string()).collect::<Vec<_>>().join(" ");
        assert_eq!(taken(Some(3)), "0 4 8");
        assert_eq!(taken(Some(20)), "0 1 2 3 4 5 6 7 8 9");
        assert_eq!(taken(None), "0 1 2 3 4 5 6 7 8 9");
    }

    #[test]
    fn a_pool_is_found_from_its_fork() {
        let pool = normalised(Path::new("/r/@hashed/a/b.git/objects/../../../@pools/c.git/objects"));
        assert_eq!(pool, Path::new("/r/@hashed/@pools/c.git/objects"));
    }
}
