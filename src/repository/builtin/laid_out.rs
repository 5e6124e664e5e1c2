//! What was laid out, against what the snapshot says of it.

use crate::host::{own, text};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::{Group, User};
use rustic_core::repofile::{Node, NodeType};

/// Numbers by name: asking for each entry anew would read the host's accounts as often.
#[derive(Default)]
pub(super) struct Accounts {
    users: Mutex<HashMap<String, Option<u32>>>,
    groups: Mutex<HashMap<String, Option<u32>>>,
}

impl Accounts {
    fn user(&self, name: &str) -> Option<u32> {
        Self::number(&self.users, name, || {
            User::from_name(name).ok()?.map(|user| user.uid.as_raw())
        })
    }

    fn group(&self, name: &str) -> Option<u32> {
        Self::number(&self.groups, name, || {
            Group::from_name(name).ok()?.map(|group| group.gid.as_raw())
        })
    }

    fn number(
        known: &Mutex<HashMap<String, Option<u32>>>,
        name: &str,
        ask: impl FnOnce() -> Option<u32>,
    ) -> Option<u32> {
        *known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(name.to_owned())
            .or_insert_with(ask)
    }
}

/// Fails with the first thing that is not as in the snapshot. The content was authenticated as it
/// was read.
pub(super) fn compare(path: &Path, node: &Node, accounts: &Accounts) -> Result<()> {
    let found = path.symlink_metadata().context("it is missing")?;
    let kind = found.file_type();
    let same_kind = match &node.node_type {
        NodeType::File => kind.is_file(),
        NodeType::Dir => kind.is_dir(),
        NodeType::Symlink { .. } => kind.is_symlink(),
        // Devices need rights that not everybody has; pipes and sockets hold nothing.
        _ => return Ok(()),
    };
    ensure!(same_kind, "it is of another kind");
    if kind.is_file() && found.len() != node.meta.size {
        bail!("it has {} bytes instead of {}", found.len(), node.meta.size);
    }
    if kind.is_symlink() {
        ensure!(own::link(path)? == node.node_type.to_link(), "it points elsewhere");
        return Ok(());
    }
    let permissions = node.meta.mode.map(|mode| mode & 0o777);
    ensure!(
        permissions.is_none_or(|mode| mode == found.mode() & 0o777),
        "its mode is {:o}",
        found.mode()
    );
    if rustix::process::geteuid().is_root() {
        // By name, where there is one here: on another host its number may be another.
        let user = node.meta.user.as_ref().and_then(|name| accounts.user(name));
        let group = node.meta.group.as_ref().and_then(|name| accounts.group(name));
        let owner = user.or(node.meta.uid).is_none_or(|uid| uid == found.uid())
            && group.or(node.meta.gid).is_none_or(|gid| gid == found.gid());
        ensure!(owner, "its owner is {}:{}", found.uid(), found.gid());
    }
    let nanoseconds = i128::from(found.mtime()) * 1_000_000_000 + i128::from(found.mtime_nsec());
    ensure!(
        node.meta.mtime.is_none_or(|mtime| mtime.as_nanosecond() == nanoseconds),
        "its time is another"
    );
    Ok(())
}

/// How many attributes that are not as they were are named.
const NAMED: usize = 20;

/// The attributes that are not as they were. A file system may have none, and some need rights that
/// nobody here has: no reason to restore nothing.
#[derive(Default)]
pub(super) struct Unlike(Mutex<(Vec<String>, usize)>);

impl Unlike {
    /// Compares the attributes of what was laid out at `laid`, and sets those that are missing:
    /// with the first that cannot be set, the library goes on to the next file. What cannot be set
    /// is kept, as of `path`.
    pub(super) fn attributes(&self, path: &Path, laid: &Path, node: &Node) -> Result<()> {
        let wanted = &node.meta.extended_attributes;
        for attribute in wanted {
            let value = attribute.value.as_deref().unwrap_or_default();
            let is_there = || {
                xattr::get(laid, &attribute.name).ok().flatten().is_some_and(|found| found == value)
            };
            if is_there() {
                continue;
            }
            match xattr::set(laid, &attribute.name, value) {
                Ok(()) if is_there() => {}
                Ok(()) => self.add(path, attribute.name.as_bytes(), "is not what it was"),
                Err(error) => {
                    self.add(path, attribute.name.as_bytes(), &format!("cannot be set: {error}"))
                }
            }
        }
        let found = match xattr::list(laid) {
            // A socket is not laid out.
            Err(error) if matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::NotFound) => {
                return Ok(());
            }
            found => found.context("its attributes cannot be read")?,
        };
        for name in found.filter(|name| {
            is_of_files(name) && !wanted.iter().any(|attribute| *attribute.name == **name)
        }) {
            self.add(path, name.as_bytes(), "was not there, and cannot be removed");
        }
        Ok(())
    }

    fn add(&self, path: &Path, name: &[u8], words: &str) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match all.0.len() < NAMED {
            true => all.0.push(format!(
                "/{}: attribute '{}' {words}",
                text::path(path),
                text::bytes(name)
            )),
            false => all.1 += 1,
        }
    }

    /// Tells them.
    pub(super) fn tell(self) {
        let (named, more) = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        named.iter().for_each(|line| tracing::warn!("{line}"));
        if more > 0 {
            tracing::warn!("{more} more attributes are not as they were");
        }
    }
}

/// Whether an attribute is a file's own: others come from its file system, or from the security
/// module of this host.
fn is_of_files(name: &OsStr) -> bool {
    ["user.", "trusted.", "system.posix_acl_"]
        .iter()
        .any(|prefix| name.as_bytes().starts_with(prefix.as_bytes()))
}
