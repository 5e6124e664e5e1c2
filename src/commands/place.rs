//! Files that appear whole or not at all.

use std::fs::{File, Permissions};
use std::io::{Read, Write};
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

/// 256 bits from the kernel, as hexadecimal digits.
pub(super) fn random_password() -> Result<String> {
    let mut bytes = [0; 32];
    File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)).context("cannot read /dev/urandom")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
