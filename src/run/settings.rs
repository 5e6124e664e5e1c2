//! Our own configuration, a part of each run: whoever has the repository and its password needs
//! nothing else to set a new host up.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::config::Config;
use crate::host::own;
use crate::paths;
use crate::repository::Engine;
use crate::runs::Part;
use crate::stores::files;
use crate::stores::files::permissions;

/// The part that holds it.
const SETTINGS: &str = "settings";
/// Bytes of a file that is taken for configuration, at most.
const SIZE: u64 = 1 << 20;

/// Stores the configuration's file and, where it lies in its own directory, what lies beside it.
/// The secrets that it names are not in it: with the repository's password in the repository,
/// nobody would miss the copy that has to be kept elsewhere until it is too late.
pub(crate) fn store(config: &Config, engine: &dyn Engine) -> Result<Part> {
    files::store_live(config, engine, SETTINGS, &named(config)?)
}

fn named(config: &Config) -> Result<Vec<PathBuf>> {
    let mut left_out = Vec::new();
    // On NixOS it is a link into the store.
    let source = own::canonical(&config.source)
        .with_context(|| format!("cannot find {}", config.source.display()))?;
    let mut named = vec![source];
    let directory = Path::new(paths::CONFIG).parent().unwrap_or(Path::new("/"));
    if config.source.parent() == Some(directory) {
        let secrets = permissions::secrets(config);
        for entry in own::entries(directory)
            .with_context(|| format!("cannot read {}", directory.display()))?
        {
            let entry = entry?;
            let (path, metadata) = (entry.path(), entry.metadata()?);
            // A link to the configuration is none that is left out: what it leads to is there.
            if secrets.contains(&&*path) || named.contains(&path) || path == config.source {
                continue;
            }
            let why = if metadata.is_dir() {
                "is a directory".to_owned()
            } else if !metadata.is_file() {
                // What it leads to may be a secret, which is kept apart on purpose.
                "is no file".to_owned()
            } else if metadata.len() > SIZE {
                format!("has more than {SIZE} bytes")
            } else {
                named.push(path);
                continue;
            };
            left_out.push(format!("not among the settings: {}: it {why}", path.display()));
        }
        named.sort();
        files::record_left_out(left_out.iter())?;
    }
    Ok(named)
}
