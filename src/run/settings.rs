//! Stores the configuration of gitlab-backup itself as a part of each run. With it, the repository
//! and its password are enough to set up a new host.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::config::Config;
use crate::host::own;
use crate::paths::{self, RootDirectory};
use crate::runs::Part;
use crate::stores::files::{self, PartDestination, permissions, record_left_out};

/// The name of the part.
const SETTINGS: &str = "settings";
/// The largest file that is stored as configuration, bytes.
const SIZE: u64 = 1 << 20;

/// Stores the configuration file and, if it is in the standard directory, the other files there.
/// Secrets that the configuration names are left out: if the repository held its own password, an
/// admin could overlook that a copy must be kept elsewhere.
pub(crate) fn store(config: &Config, destination: PartDestination<'_>) -> Result<Part> {
    files::store_live(config, destination, SETTINGS, &list_files(config, destination.root)?)
}

/// Lists the files to store, and records the entries of the directory that are left out.
fn list_files(config: &Config, root: &RootDirectory) -> Result<Vec<PathBuf>> {
    let mut left_out = Vec::new();
    // On NixOS the configuration is a link into the Nix store.
    let source = own::canonical(&config.source)
        .with_context(|| format!("cannot find {}", config.source.display()))?;
    let mut files = vec![source];
    let standard = root.at(paths::CONFIG);
    let directory = standard.parent().unwrap_or(Path::new("/"));
    if config.source.parent() == Some(directory) {
        let secrets = permissions::secrets(config);
        for entry in own::entries(directory)
            .with_context(|| format!("cannot read {}", directory.display()))?
        {
            let entry = entry?;
            let (path, metadata) = (entry.path(), entry.metadata()?);
            // `config.source` may be a link, whose target is in the list already.
            if secrets.contains(&&*path) || files.contains(&path) || path == config.source {
                continue;
            }
            let why = if metadata.is_dir() {
                "is a directory".to_owned()
            } else if !metadata.is_file() {
                // Links are not followed: the target may be a secret that is kept elsewhere.
                "is no file".to_owned()
            } else if metadata.len() > SIZE {
                format!("has more than {SIZE} bytes")
            } else {
                files.push(path);
                continue;
            };
            left_out.push(format!("not among the settings: {}: it {why}", path.display()));
        }
        files.sort();
        record_left_out(root, left_out.iter())?;
    }
    Ok(files)
}
