//! Unpredictable names and passwords.

use anyhow::{Context, Result};
use rustix::rand::{GetRandomFlags, getrandom};

/// `bytes` random bytes, as hexadecimal digits.
///
/// # Errors
/// If the kernel provides no random bytes.
pub fn hex(bytes: usize) -> Result<String> {
    let mut random = vec![0; bytes];
    let mut filled = 0;
    while filled < bytes {
        filled += getrandom(&mut random[filled..], GetRandomFlags::empty())
            .context("the kernel gives no random bytes")?;
    }
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// An unpredictable part of a name, for files in directories of other users.
pub fn name() -> Result<String> {
    hex(8)
}
