//! A directory with all below it, as one list: how deep it is, its makers decide, so nothing here calls itself, neither to build nor to count,
//! store or free it.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::entry::Entry;

/// The entries in the order of a walk: a directory, then what it holds by name, each with all below it. The first is the path itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tree(Vec<Entry>);

/// What a directory holds, by name, and of each directory the number of its own listing.
pub(super) type Listing = Vec<(Entry, Option<usize>)>;

impl Tree {
    /// Of the path's own entry, and the listings of all directories; the first is the path's own.
    pub(super) fn of(first: Entry, mut listings: Vec<Listing>) -> Self {
        let mut entries = vec![first];
        let own = listings.first_mut().map(std::mem::take).unwrap_or_default();
        // The directories that are not at their end, outermost first.
        let mut open = vec![(0, own.into_iter())];
        while let Some((at, rest)) = open.last_mut() {
            match rest.next() {
                Some((entry, listing)) => {
                    entries.push(entry);
                    if let Some(listing) = listing.and_then(|number| listings.get_mut(number)) {
                        open.push((entries.len() - 1, std::mem::take(listing).into_iter()));
                    }
                }
                None => {
                    entries[*at].below = (entries.len() - *at - 1) as u64;
                    open.pop();
                }
            }
        }
        Self(entries)
    }

    /// The entries, in the order of a walk.
    pub fn entries(&self) -> &[Entry] {
        &self.0
    }

    /// The same.
    pub fn into_entries(self) -> Vec<Entry> {
        self.0
    }

    /// How many entries there are, the path itself included.
    pub fn count(&self) -> u64 {
        self.0.len() as u64
    }

    /// The number of the first entry in the directory of this number.
    pub(super) fn first_in(&self, directory: usize) -> Option<usize> {
        self.0.get(directory).filter(|entry| entry.below > 0).map(|_| directory + 1)
    }

    /// The number of the next entry in the same directory, which is that of number `directory`.
    pub(super) fn next_in(&self, directory: usize, entry: usize) -> Option<usize> {
        let below = |number: usize| self.0.get(number).map_or(0, |entry| usize::try_from(entry.below).unwrap_or(usize::MAX));
        let next = entry.saturating_add(below(entry)).saturating_add(1);
        (next <= directory.saturating_add(below(directory))).then_some(next)
    }

    /// The number of the entry at `path`, relative to the first.
    fn find(&self, path: &Path) -> Option<usize> {
        let mut at = 0;
        for name in path {
            let mut inside = self.first_in(at);
            while let Some(number) = inside.filter(|number| self.0.get(*number).is_some_and(|entry| entry.name() != name)) {
                inside = self.next_in(at, number);
            }
            at = inside?;
        }
        Some(at)
    }

    /// The entry at `path`, relative to the first.
    pub fn get(&self, path: &Path) -> Option<&Entry> {
        self.0.get(self.find(path)?)
    }

    /// The same, to be changed.
    pub(super) fn get_mut(&mut self, path: &Path) -> Option<&mut Entry> {
        let at = self.find(path)?;
        self.0.get_mut(at)
    }
}
