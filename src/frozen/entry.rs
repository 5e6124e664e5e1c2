//! One entry of a file system: its metadata, and where its content is.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::FileType;
use serde::{Deserialize, Serialize};

/// A file, a directory with all below it, or whatever else has a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its name in its directory; any bytes.
    #[serde(with = "serde_bytes")]
    pub name: Vec<u8>,
    /// Its metadata.
    pub stat: Stat,
    /// What few entries have.
    pub extra: Option<Box<Extra>>,
    /// Where its bytes are.
    pub content: Content,
    /// The number of a directory's listing in its [`Tree`](super::Tree).
    pub listing: Option<usize>,
}

impl Entry {
    /// Its name.
    pub fn name(&self) -> &OsStr {
        OsStr::from_bytes(&self.name)
    }
}

/// Where an entry's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// It has none.
    None,
    /// Below its root's [`at`](super::Root::at).
    InPlace,
    /// In the repository: the first pass stored it, and it is the same file still.
    Seen,
    /// In the [`Staging`](super::Staging), under this number.
    Staged(u64),
}

/// Metadata, as stat(2) tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stat {
    /// Type and permissions.
    pub mode: u32,
    /// The owner's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
    /// Bytes.
    pub size: u64,
    /// Its names.
    pub links: u64,
    /// Its number in its file system.
    pub inode: u64,
    /// Its file system.
    pub device: u64,
    /// The device that a special file is.
    pub special: u64,
    /// When its content was changed last; anybody can set it.
    pub modified: Time,
    /// When anything of it was changed last; set by the kernel alone.
    pub changed: Time,
}

/// A moment, in a file system's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Time {
    /// Since 1970.
    pub seconds: i64,
    /// Of the second.
    pub nanoseconds: i32,
}

impl Time {
    /// The moment before: a time that a file does not have.
    pub(super) fn before(self) -> Self {
        match self.nanoseconds {
            0 => Self { seconds: self.seconds - 1, nanoseconds: 999_999_999 },
            nanoseconds => Self { nanoseconds: nanoseconds - 1, ..self },
        }
    }
}

impl Stat {
    /// What kind of entry it is.
    pub fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.mode)
    }

    /// From now on it is that of no file.
    pub(super) fn forget(&mut self) {
        self.changed.seconds = i64::MIN;
    }

    /// Whether it is the same file, changed or not.
    pub(super) fn is_same_file(&self, other: &Self) -> bool {
        (self.inode, self.device, self.kind()) == (other.inode, other.device, other.kind())
    }

    /// Whether this is still the file that `earlier` was, unchanged. The time of change is the
    /// kernel's, so a time of modification that was set back does not help; another file under the
    /// same name has another number.
    pub fn unchanged_since(&self, earlier: &Self) -> bool {
        self == earlier
    }
}

impl From<&rustix::fs::Stat> for Stat {
    // The fields' types differ from one machine to the next.
    #[allow(
        clippy::unnecessary_cast,
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        clippy::cast_sign_loss
    )]
    fn from(stat: &rustix::fs::Stat) -> Self {
        Self {
            mode: stat.st_mode as u32,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: stat.st_size as u64,
            links: stat.st_nlink as u64,
            inode: stat.st_ino as u64,
            device: stat.st_dev as u64,
            special: stat.st_rdev as u64,
            modified: Time {
                seconds: stat.st_mtime as i64,
                nanoseconds: stat.st_mtime_nsec as i32,
            },
            changed: Time { seconds: stat.st_ctime as i64, nanoseconds: stat.st_ctime_nsec as i32 },
        }
    }
}

/// What few entries have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extra {
    /// Where a symbolic link points to.
    #[serde(with = "serde_bytes")]
    pub target: Option<Vec<u8>>,
    /// Extended attributes, ACLs among them.
    pub attributes: Vec<Attribute>,
}

/// An extended attribute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attribute {
    /// Its name; any bytes.
    #[serde(with = "serde_bytes")]
    pub name: Vec<u8>,
    /// Its value.
    #[serde(with = "serde_bytes")]
    pub value: Vec<u8>,
}

impl Attribute {
    /// Its name, if it is one that the repository can hold: the format has text there.
    pub fn name(&self) -> Option<&str> {
        std::str::from_utf8(&self.name).ok()
    }
}
