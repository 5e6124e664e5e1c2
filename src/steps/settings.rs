//! Our own configuration, a part of each run: whoever has the repository and its password needs nothing else to set a new host up.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::config::Config;
use crate::host::own;
use crate::paths;
use crate::repository::Engine;
use crate::runs::Part;

use super::{files, permissions};

/// The part that holds it.
const SETTINGS: &str = "settings";
/// Bytes of a file that is taken for configuration, at most.
const SIZE: u64 = 1 << 20;

/// Stores the configuration's file and, where it lies in its own directory, what lies beside it. The secrets that it names are not in it: with the
/// repository's password in the repository, nobody would miss the copy that has to be kept elsewhere until it is too late.
pub(super) fn store(config: &Config, engine: &dyn Engine) -> Result<Part> {
    files::live(config, engine, SETTINGS, &named(config)?)
}

fn named(config: &Config) -> Result<Vec<PathBuf>> {
    let mut left_out = Vec::new();
    // On NixOS it is a link into the store.
    let source = own::canonical(&config.source).with_context(|| format!("cannot find {}", config.source.display()))?;
    let mut named = vec![source];
    let directory = Path::new(paths::CONFIG).parent().unwrap_or(Path::new("/"));
    if config.source.parent() == Some(directory) {
        let secrets = permissions::secrets(config);
        for entry in own::entries(directory).with_context(|| format!("cannot read {}", directory.display()))? {
            let entry = entry?;
            let (path, metadata) = (entry.path(), entry.metadata()?);
            if secrets.contains(&&*path) || named.contains(&path) {
                continue;
            }
            match () {
                () if metadata.is_dir() => left_out.push(format!("{}: it is a directory", path.display())),
                // What it leads to may be a secret, which is kept apart on purpose.
                () if !metadata.is_file() => left_out.push(format!("{}: it is no file", path.display())),
                () if metadata.len() > SIZE => left_out.push(format!("{}: it has more than {SIZE} bytes", path.display())),
                () => named.push(path),
            }
        }
        named.sort();
        let words = left_out.iter().map(|what| format!("not among the settings: {what}")).collect::<Vec<_>>();
        files::leave_word(words.iter())?;
    }
    Ok(named)
}
