//! The [`Store`] of the files: the interface through which the manifest, verify and restore use it.

use std::path::Path;

use anyhow::{Result, anyhow, bail};
use async_trait::async_trait;

use super::restore::FilesRestoration;
use super::{FILES, mounted, storages, verify};
use crate::config::Config;
use crate::finding::Finding;
use crate::frozen::At;
use crate::paths::RootDirectory;
use crate::runs::{Manifest, Part};
use crate::stores::inspection::Inspection;
use crate::stores::{Restoration, Store};

/// The directories of `[files] paths`.
pub struct FileStore;

#[async_trait(?Send)]
impl Store for FileStore {
    fn name(&self) -> &'static str {
        FILES
    }

    fn is_dumped(&self) -> bool {
        false
    }

    fn is_backed_up(&self, config: &Config) -> bool {
        config.files.command.is_none()
    }

    async fn preflight(&self, config: &Config) -> Vec<Finding> {
        let hanging = mounted::findings(config);
        // The other checks would hang on a file system whose server does not answer.
        if !hanging.is_empty() {
            return hanging;
        }
        let mut findings = check_paths(config);
        findings.extend(storages::findings(config));
        findings
    }

    async fn verify(
        &self,
        inspection: &mut Inspection<'_>,
        _: &Manifest,
        part: &Part,
        place: &Path,
    ) -> Result<()> {
        verify::verify(inspection, part, place)
    }

    fn restoration<'a>(
        &self,
        config: &'a Config,
        root: &'a RootDirectory,
    ) -> Box<dyn Restoration + 'a> {
        Box::new(FilesRestoration { config, root })
    }
}

/// Checks that every configured path can be opened as a backup opens it.
fn check_paths(config: &Config) -> Vec<Finding> {
    let open = |path: &Path| {
        let metadata = path
            .symlink_metadata()
            .map_err(|error| anyhow!("{}: {error}: correct [files] paths", path.display()))?;
        if metadata.is_symlink() {
            bail!(
                "{} is a symbolic link, and a backup would hold only the link: name what it \
                 points to in [files] paths",
                path.display()
            );
        }
        // This follows links of root only, as the backup does.
        At::itself(path).open().map(drop)
    };
    if config.files.paths.is_empty() {
        return Vec::new();
    }
    let unreadable = config.files.paths.iter().filter_map(|path| open(path).err()).collect();
    Finding::each_or("files", unreadable, format!("{} paths", config.files.paths.len()))
}
