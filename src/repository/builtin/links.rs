//! Which names in an archive are hard links to one file.
//!
//! The format identifies a file by its inode and its device number. Runs of older versions have one
//! device number for all file systems below a path, so two different files can have the same pair
//! of numbers. Their content distinguishes them, because the archive has the content of every name.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use rustic_core::RusticResult;
use rustic_core::repofile::Node;

use super::node::Listed;

/// Identifies a file by its content as well. The identities are valid as long as this lives.
#[derive(Default)]
pub(super) struct Links(RandomState);

impl Links {
    /// Returns `entry` with a device number that depends on its content, so that no name is linked
    /// to a file with other content.
    pub(super) fn separate(&self, entry: RusticResult<Listed>) -> RusticResult<Listed> {
        let (path, mut node) = entry?;
        if let Some(file) = file(&node) {
            // 0 would mean no number.
            node.meta.device_id = self.0.hash_one((file, &node.content)) | 1;
        }
        Ok((path, node))
    }

    /// How many of `entries` have the numbers of a file with other content.
    pub(super) fn count_false_links(
        &self,
        entries: impl Iterator<Item = RusticResult<Listed>>,
    ) -> RusticResult<u64> {
        let mut files: HashMap<(u64, u64), u64> = HashMap::new();
        let mut false_links = 0;
        for entry in entries {
            let (_, node) = entry?;
            let Some(file) = file(&node) else { continue };
            let content = self.0.hash_one(&node.content);
            false_links += u64::from(*files.entry(file).or_insert(content) != content);
        }
        Ok(false_links)
    }
}

/// The device and inode number of a file that has more than one name.
fn file(node: &Node) -> Option<(u64, u64)> {
    (node.is_file() && node.meta.links > 1).then_some((node.meta.device_id, node.meta.inode))
}
