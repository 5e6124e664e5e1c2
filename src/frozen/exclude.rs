//! What is left out.

use std::ffi::OsStr;
use std::path::Path;

use anyhow::{Context, Result};
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

/// A glob without a slash is a name anywhere, one that begins with a slash is a whole path, any other the end of a path.
#[derive(Debug, Clone)]
pub struct Exclude {
    names: GlobSet,
    paths: GlobSet,
}

impl Exclude {
    /// Fails if a glob is none.
    pub fn new(globs: &[String]) -> Result<Self> {
        let (mut names, mut paths) = (GlobSetBuilder::new(), GlobSetBuilder::new());
        for text in globs {
            let pattern = match text.trim_end_matches('/') {
                text if text.contains('/') && !text.starts_with('/') => format!("**/{text}"),
                text => text.to_owned(),
            };
            let glob = GlobBuilder::new(&pattern).literal_separator(true).build().with_context(|| format!("'{text}' is no glob"))?;
            if pattern.contains('/') {
                paths.add(glob)
            } else {
                names.add(glob)
            };
        }
        Ok(Self { names: names.build()?, paths: paths.build()? })
    }

    /// Whether the entry of this name in this directory is left out. Asked for every entry in the window: without globs it costs nothing.
    pub(super) fn matches(&self, directory: &Path, name: &OsStr) -> bool {
        (!self.names.is_empty() && self.names.is_match(name)) || (!self.paths.is_empty() && self.paths.is_match(directory.join(name)))
    }
}
