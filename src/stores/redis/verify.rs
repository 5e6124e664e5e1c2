//! Verifies the RDB files of a run with `redis-check-rdb`, which runs confined because the files
//! are untrusted.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use nix::unistd::User;

use super::rdb::{self, Format};
use super::{drill, remote};
use crate::finding::Finding;
use crate::host::confined::{self, Confinement};
use crate::runs::Part;
use crate::stores::inspection::{Inspection, entries, patience};

/// Reports a finding on the RDB file of each instance, and one on its drill if the depth asks for
/// it.
pub(super) async fn verify(
    inspection: &mut Inspection<'_>,
    part: &Part,
    place: &Path,
) -> Result<()> {
    inspection.extract(part, place)?;
    for (name, path) in instances(part, place)? {
        let keys = count_keys(&path, inspection.user.as_ref());
        inspection.report(match &keys {
            Ok(Some(keys)) => Finding::of(
                format!("redis {name}"),
                Ok(format!("redis-check-rdb reads {} keys", keys.read)),
            ),
            Ok(None) => Finding::warning(
                format!("redis {name}"),
                "cannot be checked: its format is newer than the redis-check-rdb of this host",
            ),
            Err(error) => Finding::of(format!("redis {name}"), Err(anyhow!("{error:#}"))),
        });
        if inspection.depth.drill {
            let expected = keys.ok().flatten();
            let loaded = drill::load(&name, &path, expected, &inspection.scratch).await;
            inspection.report(Finding::of(format!("drill redis {name}"), loaded));
        }
    }
    Ok(())
}

/// The name of each instance in the part, and the path of its extracted file.
fn instances(part: &Part, place: &Path) -> Result<Vec<(String, PathBuf)>> {
    let name = |path: &Path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let files = entries(part, place)?
        .into_iter()
        .filter(|(path, _)| path.extension() == Some(OsStr::new("rdb")));
    Ok(files.map(|(path, _)| (name(&path), path)).collect())
}

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
fn count_keys(path: &Path, user: Option<&User>) -> Result<Option<Keys>> {
    let programs = Format::at(path)?.programs("check-rdb");
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
        let output = "[offset 107] \\o/ RDB looks OK! \\o/\n[info] 5 keys read\n[info] 2 expires\n[info] 1 already expired\n";
        assert_eq!(Keys::parse(output), Some(Keys { read: 5, expires: 2 }));
        assert_eq!(Keys::parse("[offset 0] Checking RDB file x\n"), None);
    }
}
