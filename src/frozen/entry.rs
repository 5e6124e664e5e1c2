//! One entry of a file system: its metadata, and where its content is.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::FileType;
use serde::{Deserialize, Serialize};

/// A file, a directory, or anything else with a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its name in its directory; any bytes.
    #[serde(with = "serde_bytes")]
    pub name: Vec<u8>,
    /// Its metadata.
    pub stat: Stat,
    /// Properties that few entries have.
    pub extra: Option<Box<Extra>>,
    /// Where its content is.
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

/// Where the content of an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// It has none.
    None,
    /// Below its root's [`at`](super::ViewRoot::at).
    InPlace,
    /// In the repository: the first pass stored it, and the file is unchanged since.
    Seen,
    /// In the [`Staging`](super::Staging), under this number.
    Staged(u64),
}

/// Metadata as returned by stat(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stat {
    /// Type and permissions.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The size in bytes.
    pub size: u64,
    /// The number of its hard links.
    pub links: u64,
    /// The inode number.
    pub inode: u64,
    /// The device number of its file system.
    pub device: u64,
    /// The device number of a special file.
    pub special: u64,
    /// The last change of its content; the owner can set it.
    pub modified: Time,
    /// The last change of its content or metadata; only the kernel sets it.
    pub changed: Time,
}

/// A time stamp of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Time {
    /// Since 1970.
    pub seconds: i64,
    /// Of the second.
    pub nanoseconds: i32,
}

impl Time {
    /// One nanosecond earlier: a time that the file does not have.
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

    /// Makes this the metadata of no existing file.
    pub(super) fn forget(&mut self) {
        self.changed.seconds = i64::MIN;
    }

    /// Whether it is the same file, whether changed or not.
    pub(super) fn is_same_file(&self, other: &Self) -> bool {
        (self.inode, self.device, self.kind()) == (other.inode, other.device, other.kind())
    }

    /// Whether this is the same file as `earlier`, unchanged. A modification time that was set back
    /// does not deceive this, because the kernel sets the time of change; and another file under
    /// the same name has another inode number.
    pub fn unchanged_since(&self, earlier: &Self) -> bool {
        self == earlier
    }
}

impl From<&rustix::fs::Stat> for Stat {
    // The types of the fields differ between architectures.
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

/// Properties that few entries have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extra {
    /// The target of a symbolic link.
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
    /// Its name, if the repository can hold it: the format requires UTF-8.
    pub fn name(&self) -> Option<&str> {
        std::str::from_utf8(&self.name).ok()
    }
}
