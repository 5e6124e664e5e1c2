//! What an archive names, looked at before it is used: whoever writes a tree writes what he likes into it.
//!
//! Refused are names that are no name of a file in a directory (empty, `.`, `..`, with `/` or NUL, longer than 255 bytes), one that is there
//! twice or out of order (as restic refuses it from 0.20 on), something below what is no directory, and paths that are too long to be made.
//! That bounds the depth as well; the number of entries is bounded by the repository that has them all.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Result, ensure};
use rustic_core::{ErrorKind, RusticError, RusticResult};

use crate::host::text;

use super::extract::Entry;

/// Bytes of a name, NAME_MAX of limits.h(0p).
const NAME: usize = 255;
/// Bytes of a path, PATH_MAX without its NUL.
const PATH: usize = 4095;
/// Bytes of a path that are worth printing.
const SHOWN: usize = 200;

/// `entries` of a walk, up to the first that is refused. Their paths are laid out below one of `above` bytes.
pub(super) fn checked(
    entries: impl Iterator<Item = RusticResult<Entry>>,
    above: usize,
) -> impl Iterator<Item = RusticResult<Entry>> {
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
        let bytes = name.as_bytes();
        let shown = || {
            let path = self.last.iter().fold(String::new(), |path, name| path + "/" + &text::bytes(name.as_bytes()));
            let (path, name) = (format!("{path} and what follows it"), text::bytes(bytes));
            let short = |text: String| if text.len() > SHOWN { text.chars().take(SHOWN).chain("…".chars()).collect() } else { text };
            format!("the name '{}' (after {})", short(name), short(path))
        };
        let whole = !bytes.is_empty() && bytes != b"." && bytes != b".." && !bytes.contains(&b'/') && !bytes.contains(&0);
        ensure!(whole && bytes.len() <= NAME, "the archive has {}, which is no name of a file: nothing is done with it", shown());
        let full = self.above + 1 + path.as_os_str().len();
        ensure!(full <= PATH, "the archive has {}, whose path has {full} bytes, and {PATH} are possible: nothing is done with it", shown());
        ensure!(!below, "the archive has something below {}, which is no directory: nothing is done with it", shown());
        let depth = path.components().count();
        self.last.truncate(depth);
        match self.last.last_mut().filter(|_| depth > 0 && true) {
            _ if depth == 0 => {}
            _ => {}
        }
        Ok(())
    }
}
