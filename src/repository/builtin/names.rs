//! Checks the names in an archive before they are used: anybody who can write a tree can write any
//! name into it.
//!
//! The check refuses names that cannot be a file in a directory (empty, `.`, `..`, with `/` or NUL,
//! longer than 255 bytes), duplicates and names out of order (which restic 0.20 and newer refuses
//! too), entries below a file that is not a directory, and paths that are too long to be created.
//! This also limits the depth; the number of entries is limited by the repository, which has all of
//! them.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Result, ensure};
use rustic_core::{ErrorKind, RusticError, RusticResult};

use crate::host::text;

use super::node::Listed;

/// The longest name in bytes, NAME_MAX of limits.h(0p).
const NAME: usize = 255;
/// The longest path in bytes, PATH_MAX without its NUL.
const PATH: usize = 4095;
/// How many characters of a path are shown in an error.
const SHOWN: usize = 200;

/// Returns the `entries` of a walk up to the first that is refused, which is an error. They will be
/// extracted below a path of `above` bytes.
pub(super) fn checked(
    entries: impl Iterator<Item = RusticResult<Listed>>,
    above: usize,
) -> impl Iterator<Item = RusticResult<Listed>> {
    let mut names = Names { above, last: Vec::new() };
    let mut refused = false;
    entries.map_while(move |entry| {
        if refused {
            return None;
        }
        let checked = entry.and_then(|(path, node)| {
            let below = node.subtree.is_some() && !node.is_dir();
            match names.admit(&path, &node.name(), below) {
                Ok(()) => Ok((path, node)),
                Err(error) => Err(RusticError::new(ErrorKind::InvalidInput, error.to_string())),
            }
        });
        refused = checked.is_err();
        Some(checked)
    })
}

/// The state of the check.
struct Names {
    above: usize,
    /// The last name at each depth.
    last: Vec<OsString>,
}

impl Names {
    /// Fails if the entry is refused. `below` says that it has entries below it without being a
    /// directory.
    fn admit(&mut self, path: &Path, name: &OsStr, below: bool) -> Result<()> {
        let refused =
            |why: &str| format!("the archive has '{}', {why}: nothing of it is used", shown(path));
        let bytes = name.as_bytes();
        let whole = !bytes.is_empty()
            && bytes != b"."
            && bytes != b".."
            && !bytes.contains(&b'/')
            && !bytes.contains(&0);
        ensure!(
            whole && bytes.len() <= NAME,
            refused(&format!("where '{}' is no name of a file", text::bytes(bytes)))
        );
        ensure!(
            self.above + 1 + path.as_os_str().len() <= PATH,
            refused("whose path is longer than a path can be")
        );
        ensure!(!below, refused("which is no directory and has something below it"));
        // In the order of a walk, deeper names of before belong to another directory.
        let depth = path.components().count();
        let last = depth.checked_sub(1).and_then(|above| self.last.get(above));
        ensure!(
            last.is_none_or(|last| **last < *name),
            refused("which is there twice or out of order")
        );
        self.last.truncate(depth.saturating_sub(1));
        self.last.push(name.to_owned());
        Ok(())
    }
}

/// A path for an error, cut off if it is long.
fn shown(path: &Path) -> String {
    let text = text::path(path);
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
