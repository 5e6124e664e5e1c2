//! Compares extracted files with the snapshot.

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

/// The IDs of accounts by name. They are cached, because each lookup reads the host's accounts.
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

/// Fails with the first property that differs from the snapshot. The content was authenticated
/// while it was read.
pub(super) fn compare(path: &Path, node: &Node, accounts: &Accounts) -> Result<()> {
    let found = path.symlink_metadata().context("it is missing")?;
    let kind = found.file_type();
    let same_kind = match &node.node_type {
        NodeType::File => kind.is_file(),
        NodeType::Dir => kind.is_dir(),
        NodeType::Symlink { .. } => kind.is_symlink(),
        // Devices need capabilities that this process may lack; pipes and sockets have no content.
        _ => return Ok(()),
    };
    ensure!(same_kind, "it has another file type");
    if kind.is_file() && found.len() != node.meta.size {
        bail!("it has {} bytes instead of {}", found.len(), node.meta.size);
    }
    if kind.is_symlink() {
        ensure!(own::link(path)? == node.node_type.to_link(), "the link has another target");
        return Ok(());
    }
    let permissions = node.meta.mode.map(|mode| mode & 0o777);
    ensure!(
        permissions.is_none_or(|mode| mode == found.mode() & 0o777),
        "its mode is {:o}",
        found.mode()
    );
    if rustix::process::geteuid().is_root() {
        // By name, if this host has an account of that name: its ID may differ between hosts.
        let user = node.meta.user.as_ref().and_then(|name| accounts.user(name));
        let group = node.meta.group.as_ref().and_then(|name| accounts.group(name));
        let owner = user.or(node.meta.uid).is_none_or(|uid| uid == found.uid())
            && group.or(node.meta.gid).is_none_or(|gid| gid == found.gid());
        ensure!(owner, "its owner is {}:{}", found.uid(), found.gid());
    }
    let nanoseconds = i128::from(found.mtime()) * 1_000_000_000 + i128::from(found.mtime_nsec());
    ensure!(
        node.meta.mtime.is_none_or(|mtime| mtime.as_nanosecond() == nanoseconds),
        "its modification time differs"
    );
    Ok(())
}

/// How many attributes that differ are named; more are only counted.
const NAMED: usize = 20;

/// Extended attributes that differ from the snapshot. They are only a warning: a file system may
/// not support them, and some need capabilities that this process lacks.
#[derive(Default)]
pub(super) struct AttributeDifferences(Mutex<(Vec<String>, usize)>);

impl AttributeDifferences {
    /// Compares the attributes of the file that was extracted to `extracted`, and sets those that
    /// are missing: the library stops at the first that it cannot set. Records those that cannot be
    /// set, under the file's `path` in the snapshot.
    pub(super) fn compare(&self, path: &Path, extracted: &Path, node: &Node) -> Result<()> {
        let wanted = &node.meta.extended_attributes;
        for attribute in wanted {
            let value = attribute.value.as_deref().unwrap_or_default();
            let is_set = || {
                xattr::get(extracted, &attribute.name)
                    .ok()
                    .flatten()
                    .is_some_and(|found| found == value)
            };
            if is_set() {
                continue;
            }
            match xattr::set(extracted, &attribute.name, value) {
                Ok(()) if is_set() => {}
                Ok(()) => self.add(path, attribute.name.as_bytes(), "is not what it was"),
                Err(error) => {
                    self.add(path, attribute.name.as_bytes(), &format!("cannot be set: {error}"))
                }
            }
        }
        let found = match xattr::list(extracted) {
            // Sockets are not extracted.
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

    /// Logs a warning for each.
    pub(super) fn warn(self) {
        let (named, more) = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        named.iter().for_each(|line| tracing::warn!("{line}"));
        if more > 0 {
            tracing::warn!("{more} more attributes are not as they were");
        }
    }
}

/// Whether an attribute belongs to the file. Others belong to its file system or to the security
/// module of this host.
fn is_of_files(name: &OsStr) -> bool {
    ["user.", "trusted.", "system.posix_acl_"]
        .iter()
        .any(|prefix| name.as_bytes().starts_with(prefix.as_bytes()))
}
