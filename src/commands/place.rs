//! Files that appear whole or not at all.

use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};

/// Writes `path` under a temporary name, syncs it and renames it.
pub(super) fn place(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let write = || -> Result<()> {
        let mut staged = tempfile::NamedTempFile::new_in(path.parent().context("it has no directory")?)?;
        staged.write_all(content)?;
        staged.as_file().set_permissions(Permissions::from_mode(mode))?;
        staged.as_file().sync_all()?;
        staged.persist(path)?;
        Ok(())
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}
