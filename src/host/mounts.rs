//! Mounted file systems, from `/proc/self/mountinfo`, proc(5).

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{own, text};

/// A mounted file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The mount point.
    pub target: PathBuf,
    /// The type of the file system; `fuse` for every file system in user space.
    pub kind: String,
    /// The device, or another source; empty for a file system in user space.
    pub source: String,
    /// The directory of the file system that is mounted.
    pub root: PathBuf,
}

/// Reads the mounts from `file`, in the order in which they were mounted. Warns about a line that
/// cannot be parsed, and leaves it out: the other mounts must still be known.
///
/// # Errors
/// If it cannot be read.
pub fn read(file: &Path) -> Result<Vec<Mount>> {
    let text = own::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    Ok(lines
        .filter_map(|line| {
            let mount = parse(line);
            if mount.is_none() {
                tracing::warn!(
                    "{}: a line cannot be understood: {}",
                    file.display(),
                    text::bytes(line)
                );
            }
            mount
        })
        .collect())
}

/// Parses a line. As bytes, because a name need not be UTF-8; the existing libraries expect text.
/// The source may be missing.
fn parse(line: &[u8]) -> Option<Mount> {
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let path = |field: &[u8]| PathBuf::from(OsString::from_vec(unescape(field)));
    let word = |field: &[u8]| String::from_utf8_lossy(&unescape(field)).into_owned();
    let end = fields.iter().skip(6).position(|field| *field == b"-")? + 6;
    let kind = word(fields.get(end + 1)?);
    // Any user can mount a file system of type fuse, and chooses its subtype and source.
    let fuse = kind.starts_with("fuse");
    Some(Mount {
        target: path(fields.get(4)?),
        kind: if fuse { "fuse".to_owned() } else { kind },
        source: fields.get(end + 2).filter(|_| !fuse).map(|field| word(field)).unwrap_or_default(),
        root: path(fields.get(3)?),
    })
}

/// Resolves the kernel's escapes such as `\040`: of blanks, tabs, newlines, backslashes and, for
/// some file systems, `#`.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, more)) = rest.split_first() {
        let digits = more.get(..3).filter(|digits| {
            *first == b'\\' && digits.iter().all(|digit| (b'0'..=b'7').contains(digit))
        });
        let value = digits.and_then(|digits| {
            u8::try_from(
                digits.iter().fold(0u32, |value, digit| value * 8 + u32::from(digit - b'0')),
            )
            .ok()
        });
        bytes.push(value.unwrap_or(*first));
        rest = if value.is_some() { &more[3..] } else { more };
    }
    bytes
}

/// The mounts of this process.
///
/// # Errors
/// As [`read`].
pub fn seen() -> Result<Vec<Mount>> {
    read(Path::new(OWN))
}

/// The mounts of this process, as a file.
pub const OWN: &str = "/proc/self/mountinfo";

impl Mount {
    /// Whether the file system may support snapshots.
    pub fn is_volume(&self) -> bool {
        ["btrfs", "zfs"].contains(&self.kind.as_str()) || self.is_mapped()
    }

    /// Whether the device may be a logical volume: `/dev/mapper/GROUP-VOLUME`, `/dev/GROUP/VOLUME`.
    pub fn is_mapped(&self) -> bool {
        self.source
            .strip_prefix("/dev/")
            .is_some_and(|name| name.contains('/') || name.starts_with("dm-"))
    }
}

/// The mount that `path` is below.
pub fn of<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    // The later of two mounts on the same directory hides the earlier.
    mounts
        .iter()
        .filter(|mount| path.starts_with(&mount.target))
        .max_by_key(|mount| mount.target.components().count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_later_of_two_mounts_on_one_directory_is_found() {
        let mount = |target: &str, source: &str| Mount {
            target: target.into(),
            kind: "ext4".to_owned(),
            source: source.to_owned(),
            root: "/".into(),
        };
        let all = [
            mount("/", "root"),
            mount("/srv", "first"),
            mount("/srv", "second"),
            mount("/home", "home"),
        ];
        assert_eq!(
            of(&all, Path::new("/srv/git")).map(|mount| mount.source.as_str()),
            Some("second")
        );
        assert_eq!(of(&all, Path::new("/etc")).map(|mount| mount.source.as_str()), Some("root"));
    }

    #[test]
    fn a_mount_may_have_any_name_and_no_source() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let lines = b"30 20 0:40 /a\\040b /srv/x\\011\xff rw shared:1 master:2 - tmpfs  rw\n31 20 \
                      0:41 / /y rw - tmpfs none rw\nnonsense\n\
            32 20 0:42 / /a\\134b\\9 rw - nfs4 host:/\xe9 rw\n";
        std::fs::write(file.path(), lines).unwrap();
        let seen = read(file.path()).unwrap();
        let bytes = |path: &Path| path.as_os_str().as_encoded_bytes().to_vec();
        assert_eq!(
            (bytes(&seen[0].target), bytes(&seen[0].root)),
            (b"/srv/x\t\xff".to_vec(), b"/a b".to_vec())
        );
        assert_eq!((seen.len(), seen[0].source.as_str(), seen[1].source.as_str()), (3, "", "none"));
        assert_eq!(
            (bytes(&seen[2].target), seen[2].source.as_str()),
            (b"/a\\b\\9".to_vec(), "host:/\u{fffd}")
        );
        let own = read(Path::new(OWN)).unwrap();
        assert_eq!(of(&own, Path::new("/proc/self")).unwrap().kind, "proc");
    }

    #[test]
    fn type_and_source_of_a_fuse_mount_are_not_trusted() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let lines = "30 20 253:0 / /home rw - ext4 /dev/mapper/vg0-lv0 rw\n31 30 0:40 / \
                     /home/git/repositories rw,nosuid - fuse./home/git/evil /dev/vg0/lv0 \
                     rw,user_id=1000\n32 30 0:41 / /home/git/other rw,nosuid - fuseblk.zfs \
                     /dev/mapper/vg0-lv0 rw,user_id=1000\n";
        std::fs::write(file.path(), lines).unwrap();
        let seen = read(file.path()).unwrap();
        assert!(seen[0].is_volume() && seen[0].source == "/dev/mapper/vg0-lv0");
        for own in &seen[1..] {
            assert!(own.kind == "fuse" && own.source.is_empty() && !own.is_volume(), "{own:?}");
        }
    }
}
