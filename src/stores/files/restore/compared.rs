//! Configuration is not put in place unless somebody asks for it: it is extracted beside, and where
//! it differs is told.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::FileType;

use super::staged::lay;
use crate::config::Config;
use crate::host::beneath::Directory;
use crate::paths;
use crate::runs::notes::note;
use crate::stores::moves;
use crate::stores::restoration::plan;

/// How many differences of a path are named.
const NAMED: usize = 50;

/// Lays out the configuration that is not put in place, and tells where it differs.
pub fn beside(config: &Config) -> Result<()> {
    let plan = plan()?;
    let (Some(snapshot), Some(beside)) = (&plan.files, &plan.beside) else { return Ok(()) };
    let (state, name) = (
        Directory::open(Path::new(paths::STATE))?,
        Path::new(paths::RESTORED_CONFIGURATION).strip_prefix(paths::STATE)?,
    );
    let (above, run) =
        (state.make_all(name, None)?, beside.directory.file_name().context("a run has a name")?);
    above.remove(run)?;
    let staged = above.make(run, 0o700)?;
    lay(config, snapshot, &staged, beside.roots.clone())?;
    for root in &beside.roots {
        let differences = differ(root, &staged)?;
        if !differences.is_empty() {
            // Names only: what differs may be a secret.
            note(format!(
                "{} is not as in the run ({}); what the run has is in {} ('diff -r' shows it, --with-config puts it in place)",
                root.display(),
                differences.join(", "),
                beside.directory.join(moves::below(root)).display()
            ))?;
        }
    }
    Ok(())
}

/// Where what is live is not what was laid out of the run.
fn differ(root: &Path, staged: &Directory) -> Result<Vec<String>> {
    let mut found = Differences::default();
    let (inside, name) =
        (moves::below(root), root.file_name().context("a path without a name is configuration")?);
    let laid = staged.below(inside.parent().unwrap_or(Path::new("")))?;
    if !moves::is_there(root)? {
        return Ok(vec![format!("{} is missing", root.display())]);
    }
    let (live, _) = Directory::of(root)?;
    let mut open = vec![Pair { live, laid, names: vec![name.to_owned()].into_iter() }];
    while let Some(pair) = open.last_mut() {
        let Some(name) = pair.names.next() else {
            open.pop();
            continue;
        };
        let inner = pair.compare(&name, &mut found)?;
        open.extend(inner);
    }
    Ok(found.end())
}

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

    fn end(mut self) -> Vec<String> {
        self.named.extend((self.more > 0).then(|| format!("{} more", self.more)));
        self.named
    }
}

/// Two directories, and the names that are still to be compared.
struct Pair {
    live: Directory,
    laid: Directory,
    names: std::vec::IntoIter<OsString>,
}

impl Pair {
    /// Compares what has this name in both. Two directories are the next to be looked into.
    fn compare(&self, name: &OsString, found: &mut Differences) -> Result<Option<Self>> {
        let path = Path::new(name);
        let shown = self.live.path().join(path);
        let kind = |directory: &Directory| {
            Ok::<_, anyhow::Error>(
                directory.look(path)?.map(|stat| FileType::from_raw_mode(stat.st_mode)),
            )
        };
        match (kind(&self.live)?, kind(&self.laid)?) {
            (None, _) => found.add(&shown, "is missing"),
            (_, None) => found.add(&shown, "is not in the run"),
            (Some(FileType::Directory), Some(FileType::Directory)) => {
                let (live, laid) = (self.live.below(path)?, self.laid.below(path)?);
                let names = live
                    .entries()?
                    .into_iter()
                    .chain(laid.entries()?)
                    .map(|(name, _)| name)
                    .collect::<BTreeSet<_>>();
                return Ok(Some(Self {
                    live,
                    laid,
                    names: names.into_iter().collect::<Vec<_>>().into_iter(),
                }));
            }
            (Some(FileType::Symlink), Some(FileType::Symlink))
                if self.live.target(name)? == self.laid.target(name)? => {}
            (Some(FileType::RegularFile), Some(FileType::RegularFile))
                if same(self.live.file(path)?, self.laid.file(path)?)? => {}
            // Nobody reads from a pipe or a device to compare it.
            (Some(live), Some(laid))
                if live == laid && ![FileType::Symlink, FileType::RegularFile].contains(&live) => {}
            _ => found.add(&shown, "differs"),
        }
        Ok(None)
    }
}

/// Whether two files have the same bytes.
fn same(one: File, other: File) -> Result<bool> {
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
