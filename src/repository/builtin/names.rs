//! What an archive names, looked at before it is used: whoever writes a tree writes what he likes
//! into it.
//!
//! Refused are names that are no name of a file in a directory (empty, `.`, `..`, with `/` or NUL,
//! longer than 255 bytes), one that is there twice or out of order (as restic refuses it from 0.20
//! on), something below what is no directory, and paths that are too long to be made. That bounds
//! the depth as well; the number of entries is bounded by the repository that has them all.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Result, ensure};
use rustic_core::{ErrorKind, RusticError, RusticResult};

use crate::host::text;

use super::node::Listed;

/// Bytes of a name, NAME_MAX of limits.h(0p).
const NAME: usize = 255;
/// Bytes of a path, PATH_MAX without its NUL.
const PATH: usize = 4095;
/// Bytes of a path that are worth printing.
const SHOWN: usize = 200;

/// `entries` of a walk, up to the first that is refused. Their paths are laid out below one of
/// `above` bytes.
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

/// What was seen last at each depth.
struct Names {
    above: usize,
    last: Vec<OsString>,
}

impl Names {
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
        // They come as a walk meets them: what is deeper was seen in another directory.
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

/// A path, and of a long one its beginning.
fn shown(path: &Path) -> String {
    let text = text::path(path);
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
