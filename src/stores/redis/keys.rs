//! Counts the keys of an RDB file with `redis-check-rdb`, which runs confined because the file is
//! untrusted.

use std::path::Path;

use anyhow::{Context, Result};
use nix::unistd::User;

use super::rdb::{self, RdbFormat};
use super::remote;
use crate::host::confined::{self, Confinement};
use crate::stores::inspection::patience;

/// The number of keys in an RDB file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Keys {
    /// All of them.
    pub read: u64,
    /// Those with a time to live. A server drops the expired ones when it loads the file.
    pub expires: u64,
}

/// Runs `redis-check-rdb`, or Valkey's equivalent, which reads the whole file and counts its keys.
/// `None` if the program is too old for the format.
pub(super) fn count_keys(path: &Path, user: Option<&User>) -> Result<Option<Keys>> {
    let programs = RdbFormat::at(path)?.programs("check-rdb");
    let program = remote::installed(&programs)
        .with_context(|| format!("{} is not installed", programs.join(" or ")))?;
    let place = path.parent().context("a file has no directory")?;
    let bytes = path
        .symlink_metadata()
        .with_context(|| format!("cannot look at {}", path.display()))?
        .len();
    let mut command = Confinement::new(user, place).command(&program);
    let output = match confined::run(command.arg(path), "redis-check-rdb", patience(bytes)) {
        Err(error) if rdb::is_unknown_format(&format!("{error:#}")) => return Ok(None),
        output => output?,
    };
    Keys::parse(&output)
        .with_context(|| format!("redis-check-rdb did not count the keys of {}", path.display()))
        .map(Some)
}

impl Keys {
    /// Parses lines such as `[info] 5 keys read` and `[info] 2 expires`.
    fn parse(output: &str) -> Option<Self> {
        let number = |words: &str| {
            output.lines().find_map(|line| {
                line.strip_prefix("[info] ")?.strip_suffix(words)?.trim().parse::<u64>().ok()
            })
        };
        Some(Self { read: number("keys read")?, expires: number("expires").unwrap_or(0) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_parsed_from_the_output_of_redis_check_rdb() {
        let output = "[offset 107] \\o/ RDB looks OK! \\o/\n[info] 5 keys read\n[info] 2 \
                      expires\n[info] 1 already expired\n";
        assert_eq!(Keys::parse(output), Some(Keys { read: 5, expires: 2 }));
        assert_eq!(Keys::parse("[offset 0] Checking RDB file x\n"), None);
    }
}
