//! Extracts the run's configuration for comparison, and notes where the live one differs. A restore
//! replaces configuration only if the admin asks for it.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::FileType;

use super::staged::extract;
use crate::config::Config;
use crate::host::beneath::Directory;
use crate::paths::{self, RootDirectory};
use crate::runs::notes::note;
use crate::stores::moves;
use crate::stores::restoration::plan;

/// How many differences of a path are named. The others are only counted.
const NAMED: usize = 50;

/// Extracts the configuration that the restore does not replace, and notes each path whose live
/// version differs.
pub fn stage_configuration(config: &Config, root: &RootDirectory) -> Result<()> {
    let plan = plan(root)?;
    let (Some(snapshot), Some(beside)) = (&plan.files, &plan.beside) else { return Ok(()) };
    let (state, all) = (root.at(paths::STATE), root.at(paths::RESTORED_CONFIGURATION));
    let above = Directory::open(&state)?.make_all(all.strip_prefix(&state)?, None)?;
    let run = beside.directory.file_name().context("a run has a name")?;
    above.remove(run)?;
    let staged = above.make(run, 0o700)?;
    extract(config, snapshot, &staged, beside.roots.clone())?;
    for path in &beside.roots {
        let differences = find_differences(path, &staged)?;
        if !differences.is_empty() {
            // The note names the files only: their content may be secret.
            let words = format!(
                "{} is not as in the run ({}); the run's version is in {} (compare with 'diff \
                 -r'; --with-config restores it)",
                path.display(),
                differences.join(", "),
                beside.directory.join(moves::below(path)).display()
            );
            note(root, words)?;
        }
    }
    Ok(())
}

/// Compares the live `root` with the one in `staged`. Returns a line for each difference.
fn find_differences(root: &Path, staged: &Directory) -> Result<Vec<String>> {
    let mut found = Differences::default();
    let (inside, name) =
        (moves::below(root), root.file_name().context("a path without a name is configuration")?);
    let restored = staged.below(inside.parent().unwrap_or(Path::new("")))?;
    if !moves::is_there(root)? {
        return Ok(vec![format!("{} is missing", root.display())]);
    }
    let (live, _) = Directory::of(root)?;
    let mut open = vec![ComparedPair { live, restored, names: vec![name.to_owned()].into_iter() }];
    while let Some(pair) = open.last_mut() {
        let Some(name) = pair.names.next() else {
            open.pop();
            continue;
        };
        let inner = pair.compare(&name, &mut found)?;
        open.extend(inner);
    }
    Ok(found.into_lines())
}

/// The differences found so far: the first [`NAMED`] as lines, and the number of the others.
#[derive(Default)]
struct Differences {
    named: Vec<String>,
    more: usize,
}

impl Differences {
    fn add(&mut self, path: &Path, words: &str) {
        match self.named.len() < NAMED {
            true => self.named.push(format!("{} {words}", path.display())),
            false => self.more += 1,
        }
    }

    fn into_lines(mut self) -> Vec<String> {
        self.named.extend((self.more > 0).then(|| format!("{} more", self.more)));
        self.named
    }
}

/// A live directory and its restored version, with the names that are not compared yet.
struct ComparedPair {
    live: Directory,
    restored: Directory,
    names: std::vec::IntoIter<OsString>,
}

impl ComparedPair {
    /// Compares the two entries `name`. If both are directories, returns them as the next pair.
    fn compare(&self, name: &OsString, found: &mut Differences) -> Result<Option<Self>> {
        let path = Path::new(name);
        let shown = self.live.path().join(path);
        let kind = |directory: &Directory| {
            Ok::<_, anyhow::Error>(
                directory.look(path)?.map(|stat| FileType::from_raw_mode(stat.st_mode)),
            )
        };
        match (kind(&self.live)?, kind(&self.restored)?) {
            (None, _) => found.add(&shown, "is missing"),
            (_, None) => found.add(&shown, "is not in the run"),
            (Some(FileType::Directory), Some(FileType::Directory)) => {
                let (live, restored) = (self.live.below(path)?, self.restored.below(path)?);
                let names = live
                    .entries()?
                    .into_iter()
                    .chain(restored.entries()?)
                    .map(|(name, _)| name)
                    .collect::<BTreeSet<_>>();
                let names = names.into_iter().collect::<Vec<_>>().into_iter();
                return Ok(Some(Self { live, restored, names }));
            }
            (Some(FileType::Symlink), Some(FileType::Symlink))
                if self.live.target(name)? == self.restored.target(name)? => {}
            (Some(FileType::RegularFile), Some(FileType::RegularFile))
                if have_same_content(self.live.file(path)?, self.restored.file(path)?)? => {}
            // Pipes, sockets and devices are compared by type only. Reading them could hang.
            (Some(live), Some(restored))
                if live == restored
                    && ![FileType::Symlink, FileType::RegularFile].contains(&live) => {}
            _ => found.add(&shown, "differs"),
        }
        Ok(None)
    }
}

fn have_same_content(one: File, other: File) -> Result<bool> {
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut one, mut other) = (std::io::BufReader::new(one), std::io::BufReader::new(other));
    let (mut left, mut right) = ([0; 8192], [0; 8192]);
    loop {
        let count = one.read(&mut left)?;
        if count == 0 {
            return Ok(true);
        }
        if other.read_exact(&mut right[..count]).is_err() || left[..count] != right[..count] {
            return Ok(false);
        }
    }
}
