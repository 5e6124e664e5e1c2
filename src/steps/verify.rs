//! Whether a run could be restored: everything that can be found out without restoring it.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::catalog::CompleteRun;
use crate::config::Config;
use crate::repository::Engine;
use crate::runs::Part;

use super::{extract, process};

/// How thorough to be.
#[derive(Debug, Clone, Copy)]
pub struct Depth {
    /// Read every byte of the repository.
    pub read_data: bool,
    /// How many Git repositories are checked, spread over all of them; all if `None`.
    pub repositories: Option<usize>,
}

/// Verifies `run` and tells each finding as it comes: what was looked at, and what was seen or is wrong. True if nothing is wrong.
///
/// # Errors
/// If there is no place to work in.
pub fn verify(
    config: &Config,
    engine: &dyn Engine,
    run: &CompleteRun,
    depth: Depth,
    scratch: &Path,
    tell: &mut dyn FnMut(&str, &Result<String>),
) -> Result<bool> {
    let mut good = true;
    let mut find = |what: &str, result: Result<String>| {
        good &= result.is_ok();
        tell(what, &result);
    };
    let bytes = if depth.read_data { "every byte read" } else { "structure only; --read-data reads every byte" };
    find("repository", engine.check(depth.read_data).map(|()| bytes.to_owned()));
    find("keys", engine.keys().map(|keys| key_words(keys.len())));
    let directory = tempfile::Builder::new().prefix("gitlab-backup-verify-").tempdir_in(scratch);
    let directory =
        directory.with_context(|| format!("cannot make a directory in {}: --scratch names another place", scratch.display()))?;
    for part in &run.manifest.parts {
        find(&format!("part {}", part.name), unchanged(run, part));
        let place = directory.path().join(&part.name);
        match part.name.as_str() {
            "postgresql" | "redis" => {
                if let Err(error) = extract::in_child(config, &part.snapshot, &place, &[]) {
                    find(&format!("part {}", part.name), Err(error));
                    continue;
                }
                for path in entries_below(&place, &part.paths)? {
                    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                    if path.is_dir() {
                        find(&format!("database {name}"), dump(config, &path));
                    } else if path.extension() == Some(OsStr::new("rdb")) {
                        find(&format!("redis {}", name.trim_end_matches(".rdb")), snapshot(&path));
                    }
                }
            }
            "files" => match repositories(engine, part) {
                Ok(all) => {
                    for path in sample(&all, depth.repositories) {
                        find(&format!("git {}", path.display()), fsck(config, part, path, &place));
                    }
                }
                Err(error) => find("git repositories", Err(error)),
            },
            _ => {}
        }
        if place.exists() {
            fs::remove_dir_all(&place).with_context(|| format!("cannot remove {}", place.display()))?;
        }
    }
    Ok(good)
}

fn key_words(count: usize) -> String {
    match count {
        1 => "only one: if its password is lost, everything is; 'gitlab-backup key add' makes another, to be kept elsewhere".to_owned(),
        count => format!("{count} open the repository"),
    }
}

/// The snapshot is there, and is the one that the manifest vouches for.
pub(super) fn unchanged(run: &CompleteRun, part: &Part) -> Result<String> {
    let snapshot = run.snapshots.iter().find(|snapshot| snapshot.id == part.snapshot);
    let snapshot = snapshot.with_context(|| format!("snapshot {} is gone", part.snapshot))?;
    let found = format!("sha256-tree:{}", snapshot.tree);
    ensure!(found == part.checksum, "snapshot {} is another one than the manifest says ({found}, not {})", part.snapshot, part.checksum);
    Ok(format!("{} files, {}", part.files, indicatif::BinaryBytes(part.bytes)))
}

/// What lies in `paths` of a part that was laid out at `place`.
fn entries_below(place: &Path, paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for path in paths {
        let path = place.join(path.strip_prefix("/").unwrap_or(path));
        for entry in fs::read_dir(&path).with_context(|| format!("cannot read {}", path.display()))? {
            all.push(entry?.path());
        }
    }
    all.sort();
    Ok(all)
}

fn dump(config: &Config, path: &Path) -> Result<String> {
    let directory = config.postgresql.as_ref().and_then(|postgresql| postgresql.bin_dir.as_ref());
    let program = directory.map_or_else(|| PathBuf::from("pg_restore"), |directory| directory.join("pg_restore"));
    let list = run(Command::new(program).arg("--list").arg(path))?;
    let tables = list.lines().filter(|line| line.contains(" TABLE DATA ")).count();
    Ok(format!("pg_restore reads it, {tables} tables with data"))
}

fn snapshot(path: &Path) -> Result<String> {
    run(Command::new("redis-check-rdb").arg(path)).map(|_| "redis-check-rdb reads it".to_owned())
}

/// The directories that are Git repositories: those with the two directories that each has.
fn repositories(engine: &dyn Engine, part: &Part) -> Result<Vec<PathBuf>> {
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
fn sample(all: &[PathBuf], count: Option<usize>) -> impl Iterator<Item = &PathBuf> {
    let step = count.map_or(1, |count| all.len().div_ceil(count.max(1)).max(1));
    all.iter().step_by(step)
}

fn fsck(config: &Config, part: &Part, path: &Path, place: &Path) -> Result<String> {
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
    run(Command::new("git").args(safe).arg(&laid).args(["fsck", "--no-dangling", "--no-progress"]))
        .map(|_| "git fsck is content".to_owned())
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

fn run(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot run {program}: is it installed?"))?;
    if !output.status.success() {
        bail!("{program}: {}", process::tail(&[output.stdout, output.stderr].concat()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
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
