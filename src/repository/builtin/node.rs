//! Entries in restic's format.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use nix::unistd::{Gid, Group, Uid, User};
use rustic_core::repofile::{Metadata, Node, NodeType};
use rustix::fs::FileType;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::frozen::{Entry, Stat, Time};

/// The bits of inode(7) and the corresponding ones of Go's os.FileMode, which the format uses. The
/// permission bits are the same.
const BITS: [(u32, u32); 3] = [(0o4000, 1 << 23), (0o2000, 1 << 22), (0o1000, 1 << 20)];
const PERMISSIONS: u32 = 0o777;

/// The path and the node of an entry in a snapshot.
pub(super) type Listed = (PathBuf, Node);

/// Converts entries to nodes, and caches the names of accounts.
#[derive(Default)]
pub(super) struct Nodes {
    users: HashMap<u32, Option<String>>,
    groups: HashMap<u32, Option<String>>,
}

impl Nodes {
    /// The node of `entry`, which is on the host's `device`. Fails if the library does not accept
    /// its attributes.
    pub(super) fn node(&mut self, entry: &Entry, device: u64) -> Result<Node> {
        let stat = &entry.stat;
        let directory = stat.kind() == FileType::Directory;
        let modified = time(stat.modified);
        let meta = Metadata {
            mode: Some(mode(stat)),
            mtime: modified,
            // The access time is not backed up, because the backup itself changes it.
            atime: modified,
            ctime: time(stat.changed),
            uid: Some(stat.uid),
            gid: Some(stat.gid),
            user: self.user(stat.uid),
            group: self.group(stat.gid),
            inode: stat.inode,
            // Only needed to recognize hard links.
            device_id: if stat.links > 1 && !directory { device } else { 0 },
            size: if directory { 0 } else { stat.size },
            links: if directory { 0 } else { stat.links },
            extended_attributes: attributes(entry)?,
        };
        Ok(Node::new_node(entry.name(), kind(entry), meta))
    }

    fn user(&mut self, uid: u32) -> Option<String> {
        self.users
            .entry(uid)
            .or_insert_with(|| Some(User::from_uid(Uid::from_raw(uid)).ok()??.name))
            .clone()
    }

    fn group(&mut self, gid: u32) -> Option<String> {
        self.groups
            .entry(gid)
            .or_insert_with(|| Some(Group::from_gid(Gid::from_raw(gid)).ok()??.name))
            .clone()
    }
}

fn kind(entry: &Entry) -> NodeType {
    let device = entry.stat.special;
    match entry.stat.kind() {
        FileType::Directory => NodeType::Dir,
        FileType::Symlink => {
            let target =
                entry.extra.as_ref().and_then(|extra| extra.target.as_deref()).unwrap_or_default();
            NodeType::from_link(Path::new(OsStr::from_bytes(target)))
        }
        FileType::BlockDevice => NodeType::Dev { device },
        FileType::CharacterDevice => NodeType::Chardev { device },
        FileType::Fifo => NodeType::Fifo,
        FileType::Socket => NodeType::Socket,
        _ => NodeType::File,
    }
}

fn mode(stat: &Stat) -> u32 {
    let kind = match stat.kind() {
        FileType::Directory => 1 << 31,
        FileType::Symlink => 1 << 27,
        FileType::BlockDevice => 1 << 26,
        FileType::CharacterDevice => 1 << 26 | 1 << 21,
        FileType::Fifo => 1 << 25,
        FileType::Socket => 1 << 24,
        _ => 0,
    };
    BITS.iter()
        .filter(|(unix, _)| stat.mode & unix != 0)
        .fold(stat.mode & PERMISSIONS | kind, |mode, (_, go)| mode | go)
}

fn time(time: Time) -> Option<rustic_core::jiff::Timestamp> {
    rustic_core::jiff::Timestamp::new(time.seconds, time.nanoseconds).ok()
}

/// The library does not export the type of attributes, but can deserialize it.
fn attributes<T: DeserializeOwned + Default>(entry: &Entry) -> Result<T> {
    let Some(extra) = entry.extra.as_ref().filter(|extra| !extra.attributes.is_empty()) else {
        return Ok(T::default());
    };
    // An attribute whose name is not UTF-8 is left out; the walk has reported it.
    let list: Vec<_> = extra
        .attributes
        .iter()
        .filter_map(|attribute| {
            let value = BASE64_STANDARD.encode(&attribute.value);
            Some(json!({ "name": attribute.name()?, "value": value }))
        })
        .collect();
    serde_json::from_value(list.into()).context("the extended attributes cannot be stored")
}
