//! Names and passwords that nobody can guess.

use anyhow::{Context, Result};
use rustix::rand::{GetRandomFlags, getrandom};

/// `bytes` bytes from the kernel, as hexadecimal digits.
///
/// # Errors
/// If the kernel has none to give.
pub fn hex(bytes: usize) -> Result<String> {
    let mut random = vec![0; bytes];
    let mut filled = 0;
    while filled < bytes {
        filled += getrandom(&mut random[filled..], GetRandomFlags::empty())
            .context("the kernel gives no random bytes")?;
    }
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// For the name of something that is made where others can make things too.
pub fn name() -> Result<String> {
    hex(8)
}
