//! Which names of an archive are one file.
//!
//! The format knows it by two numbers, of the file and of its file system. Runs of old have one
//! number for all file systems below a path, so two files can have both numbers in common. The
//! content that each name has tells them apart: the archive has it of every name.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use rustic_core::RusticResult;
use rustic_core::repofile::Node;

use super::node::Listed;

/// Names a file by what it holds too; for as long as this lives.
#[derive(Default)]
pub(super) struct Links(RandomState);

impl Links {
    /// `entry`, whose file system's number is another for other content: no name is linked to
    /// another's file.
    pub(super) fn told_apart(&self, entry: RusticResult<Listed>) -> RusticResult<Listed> {
        let (path, mut node) = entry?;
        if let Some(file) = file(&node) {
            // 0 would be none.
            node.meta.device_id = self.0.hash_one((file, &node.content)) | 1;
        }
        Ok((path, node))
    }

    /// How many of `entries` have the numbers of a file that holds something else.
    pub(super) fn confused(
        &self,
        entries: impl Iterator<Item = RusticResult<Listed>>,
    ) -> RusticResult<u64> {
        let mut files: HashMap<(u64, u64), u64> = HashMap::new();
        let mut confused = 0;
        for entry in entries {
            let (_, node) = entry?;
            let Some(file) = file(&node) else { continue };
            let content = self.0.hash_one(&node.content);
            confused += u64::from(*files.entry(file).or_insert(content) != content);
        }
        Ok(confused)
    }
}

/// The file system's number and the file's, of a file that has more than one name.
fn file(node: &Node) -> Option<(u64, u64)> {
    (node.is_file() && node.meta.links > 1).then_some((node.meta.device_id, node.meta.inode))
}
