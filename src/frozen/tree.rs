//! A directory with everything below it, packed so that each of millions of entries needs only the
//! bytes of its fields. GitLab's users decide how deep it is, so no function here is recursive.

use std::borrow::Borrow;
use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::entry::Entry;

/// The byte before each entry: whether a later walk may treat it as unchanged.
const KNOWN: u8 = 1;
const FORGOTTEN: u8 = 0;

/// The entry of a path, and everything below it. The entries of each directory are one listing. The
/// listings are in the order in which they were read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tree {
    /// All listings, one after the other; [`saved`](Self::save) separately from the other fields.
    #[serde(skip)]
    packed: Vec<u8>,
    /// The range of each listing in `packed`, by its number. The first has only the entry of the
    /// path itself.
    listings: Vec<Range<usize>>,
    /// The number of all entries.
    count: u64,
}

/// The entries of one directory, sorted by name.
#[derive(Default)]
pub(super) struct Listing {
    packed: Vec<u8>,
    count: u64,
}

impl Listing {
    /// Appends an entry.
    pub(super) fn push(&mut self, entry: &Entry) -> Result<()> {
        self.packed.push(KNOWN);
        self.packed = postcard::to_extend(entry, std::mem::take(&mut self.packed))?;
        self.count += 1;
        Ok(())
    }
}

impl Tree {
    /// An empty tree with a number for the listing of the path itself.
    pub(super) fn new() -> Self {
        Self { packed: Vec::new(), listings: vec![Range::default()], count: 0 }
    }

    /// Reserves a number for a listing, which is empty until it is [`put`](Self::put).
    pub(super) fn reserve(&mut self) -> usize {
        self.listings.push(0..0);
        self.listings.len() - 1
    }

    /// Adds the listing with this number.
    pub(super) fn put(&mut self, number: usize, listing: &Listing) {
        let start = self.packed.len();
        self.packed.extend_from_slice(&listing.packed);
        self.listings[number] = start..self.packed.len();
        self.count += listing.count;
    }

    /// The number of entries, including the path itself.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The entry of the path itself.
    pub fn first(&self) -> Result<Entry> {
        self.named(0)?.next()?.context("it is empty")
    }

    /// The entries in the order of a walk: a directory, then its entries by name, each with
    /// everything below it. `path` is the path of the first.
    pub fn entries(&self, path: &Path) -> Entries<&Self> {
        Entries::of(self, path)
    }

    /// Like [`entries`](Self::entries), but owns the tree.
    pub fn into_entries(self, path: &Path) -> Entries<Self> {
        Entries::of(self, path)
    }

    /// The entry at `path`, relative to the first.
    pub fn get(&self, path: &Path) -> Result<Option<Entry>> {
        Ok(self.find(path)?.map(|(_, entry)| entry))
    }

    /// Forgets the entry at `path`: any file that is found there counts as changed.
    pub(super) fn forget(&mut self, path: &Path) -> Result<()> {
        if let Some((at, _)) = self.find(path)?
            && let Some(byte) = self.packed.get_mut(at)
        {
            *byte = FORGOTTEN;
        }
        Ok(())
    }

    /// The entry at `path`, and the position of its first byte.
    fn find(&self, path: &Path) -> Result<Option<(usize, Entry)>> {
        let mut rest = self.listing(0)?;
        let mut found = (rest.start, self.take(&mut rest)?);
        for name in path {
            let Some(number) = found.1.listing else { return Ok(None) };
            let mut rest = self.listing(number)?;
            found = loop {
                if rest.is_empty() {
                    return Ok(None);
                }
                let at = rest.start;
                let entry = self.take(&mut rest)?;
                if entry.name() == name {
                    break (at, entry);
                }
            };
        }
        Ok(Some(found))
    }

    /// The entries of a listing, for lookup by name.
    pub(super) fn named(&self, number: usize) -> Result<Named<'_>> {
        Ok(Named { tree: self, rest: self.listing(number)?, peeked: None })
    }

    fn listing(&self, number: usize) -> Result<Range<usize>> {
        self.listings.get(number).cloned().context("a directory has no listing")
    }

    /// Reads the first entry of `rest` and removes it from the range.
    fn take(&self, rest: &mut Range<usize>) -> Result<Entry> {
        let (known, packed) = self
            .packed
            .get(rest.clone())
            .and_then(<[u8]>::split_first)
            .context("a listing ends too early")?;
        let (mut entry, after): (Entry, _) =
            postcard::take_from_bytes(packed).context("an entry is none")?;
        if *known == FORGOTTEN {
            entry.stat.forget();
        }
        rest.start = rest.end - after.len();
        Ok(entry)
    }

    /// Writes the field that serde leaves out.
    pub(super) fn save(&self, writer: &mut impl Write) -> io::Result<()> {
        writer.write_all(&self.packed)
    }

    /// Reads that field, if `left` has enough bytes. Runs in the window, so it checks no entries.
    pub(super) fn load(&mut self, reader: &mut impl Read, left: &mut u64) -> Result<()> {
        let length =
            self.listings.iter().try_fold(0_usize, |sum, listing| sum.checked_add(listing.len()));
        let length = length.context("a listing is too long")?;
        *left = left.checked_sub(length as u64).context("it ends too early")?;
        self.packed = vec![0; length];
        Ok(reader.read_exact(&mut self.packed)?)
    }
}

/// The entries of one directory, looked up in the order of their names.
pub(super) struct Named<'a> {
    tree: &'a Tree,
    rest: Range<usize>,
    /// An entry that was read already; its name is greater than every name looked up so far.
    peeked: Option<Entry>,
}

impl Named<'_> {
    /// Finds the entry with this name, which must be greater than the last one.
    pub(super) fn find(&mut self, name: &OsStr) -> Result<Option<Entry>> {
        loop {
            match self.next()? {
                Some(entry) if entry.name() < name => {}
                Some(entry) if entry.name() == name => return Ok(Some(entry)),
                entry => {
                    self.peeked = entry;
                    return Ok(None);
                }
            }
        }
    }

    /// The next entry, by name; none at the end of the listing.
    fn next(&mut self) -> Result<Option<Entry>> {
        match self.peeked.take() {
            None if !self.rest.is_empty() => self.tree.take(&mut self.rest).map(Some),
            peeked => Ok(peeked),
        }
    }
}

/// Iterates over the entries of a tree.
pub struct Entries<T> {
    tree: T,
    /// The rest of each directory that is not finished, outermost first.
    open: Vec<Range<usize>>,
    /// The path of the last entry.
    path: PathBuf,
    /// How many names the last entry is below the first.
    depth: usize,
    /// The number of entries that remain.
    left: u64,
}

impl<T: Borrow<Tree>> Entries<T> {
    fn of(tree: T, path: &Path) -> Self {
        let open = tree.borrow().listings.iter().take(1).cloned().collect();
        let left = tree.borrow().count;
        Self { tree, open, path: path.to_owned(), depth: 0, left }
    }

    /// The path of the last entry.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn step(&mut self) -> Result<Option<Entry>> {
        while self.open.last().is_some_and(|rest| rest.is_empty()) {
            self.open.pop();
        }
        let depth = self.open.len().saturating_sub(1);
        let Some(rest) = self.open.last_mut() else {
            ensure!(self.left == 0, "{} entries are missing", self.left);
            return Ok(None);
        };
        let tree = self.tree.borrow();
        let entry = tree.take(rest)?;
        // A damaged tree that contains itself ends here.
        self.left = self.left.checked_sub(1).context("it has more entries than were counted")?;
        if depth > 0 {
            for _ in depth..=self.depth {
                self.path.pop();
            }
            self.path.push(entry.name());
        }
        self.depth = depth;
        if let Some(number) = entry.listing {
            self.open.push(tree.listing(number)?);
        }
        Ok(Some(entry))
    }
}

impl<T: Borrow<Tree>> Iterator for Entries<T> {
    type Item = Result<Entry>;

    /// Ends after an error.
    fn next(&mut self) -> Option<Result<Entry>> {
        let step = self.step();
        if step.is_err() {
            (self.left, self.open) = (0, Vec::new());
        }
        step.transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::super::entry::{Attribute, Content, Extra, Stat, Time};
    use super::*;

    fn entry(name: &str, listing: Option<usize>) -> Entry {
        let time = Time { seconds: 1_795_000_000, nanoseconds: 123_456_789 };
        let (inode, mode) = if listing.is_some() { (2, 0o040_755) } else { (3, 0o100_644) };
        let stat = Stat {
            mode,
            uid: 998,
            gid: 998,
            size: 1,
            links: 1,
            inode,
            device: 0xfe00,
            special: 0,
            modified: time,
            changed: time,
        };
        Entry { name: name.into(), stat, extra: None, content: Content::None, listing }
    }

    /// Builds a tree of directories: the name, the number of the listing, and the names in it. An
    /// entry is a directory if one of them has its name. The listings are added in this order.
    fn tree(directories: &[(&str, usize, &[&str])]) -> Tree {
        let mut tree = Tree::new();
        tree.listings.resize(directories.len(), 0..0);
        for (_, number, names) in directories {
            let mut listing = Listing::default();
            for name in *names {
                let inside = directories
                    .iter()
                    .find(|(directory, ..)| directory == name)
                    .map(|(_, number, _)| *number);
                listing.push(&entry(name, inside)).unwrap();
            }
            tree.put(*number, &listing);
        }
        tree
    }

    /// The inner directories are finished first.
    fn nested() -> Tree {
        tree(&[
            ("b", 2, &["c", "file"]),
            ("c", 3, &[]),
            ("z", 4, &["last"]),
            ("root", 1, &["a", "b", "d", "z"]),
            ("", 0, &["root"]),
        ])
    }

    fn walked(tree: &Tree) -> Vec<String> {
        let mut entries = tree.entries(Path::new("/srv/root"));
        let mut paths = Vec::new();
        while let Some(entry) = entries.next() {
            assert_eq!(entries.path().file_name(), Some(entry.unwrap().name()));
            paths.push(entries.path().to_str().unwrap().to_owned());
        }
        paths
    }

    #[test]
    fn every_kind_of_entry_comes_back() {
        let base = entry("file", None);
        let extra = |target: Option<&[u8]>, values: &[&[u8]]| {
            let attributes = values
                .iter()
                .map(|value| Attribute { name: b"user.\xff".into(), value: value.to_vec() })
                .collect();
            Some(Box::new(Extra { target: target.map(<[u8]>::to_vec), attributes }))
        };
        let largest = Stat {
            mode: u32::MAX,
            uid: u32::MAX,
            gid: u32::MAX,
            size: u64::MAX,
            links: u64::MAX,
            inode: u64::MAX,
            device: u64::MAX,
            special: u64::MAX,
            modified: Time { seconds: i64::MAX, nanoseconds: i32::MAX },
            changed: Time { seconds: i64::MIN, nanoseconds: i32::MIN },
        };
        let entries = [
            base.clone(),
            Entry { content: Content::InPlace, ..base.clone() },
            Entry { content: Content::Seen, ..base.clone() },
            Entry { content: Content::Staged(0), ..base.clone() },
            Entry { content: Content::Staged(u64::MAX), stat: largest, ..base.clone() },
            Entry { name: b"\xff\n".into(), extra: extra(Some(b"../\xfe"), &[]), ..base.clone() },
            Entry {
                name: vec![b'x'; 255],
                extra: extra(Some(&[b'y'; 4095]), &[&[0; 65536], b""]),
                ..base.clone()
            },
            Entry { extra: extra(None, &[b"value"]), ..base },
            entry("directory", Some(usize::MAX)),
        ];
        let mut listing = Listing::default();
        entries.iter().for_each(|entry| listing.push(entry).unwrap());
        let mut tree = Tree::new();
        tree.put(0, &listing);
        let mut rest = tree.listing(0).unwrap();
        for entry in &entries {
            assert_eq!(&tree.take(&mut rest).unwrap(), entry);
        }
        assert!(rest.is_empty() && tree.take(&mut rest).is_err());
        assert_eq!(tree.count(), 9);
    }

    #[test]
    fn the_order_is_that_of_a_walk_whatever_was_read_first() {
        let below = ["", "/a", "/b", "/b/c", "/b/file", "/d", "/z", "/z/last"];
        assert_eq!(walked(&nested()), below.map(|path| format!("/srv/root{path}")));
        assert_eq!(nested().into_entries(Path::new("/")).count(), 8);
        assert_eq!(nested().first().unwrap().name(), "root");
        let alone = tree(&[("", 0, &["root"])]);
        assert_eq!(walked(&alone), ["/srv/root"]);
    }

    #[test]
    fn what_is_asked_for_by_name_passes_over_what_is_below_the_others() {
        let tree = nested();
        let mut named = tree.named(1).unwrap();
        for (name, there) in
            [("A", false), ("b", true), ("bb", false), ("c", false), ("z", true), ("zz", false)]
        {
            assert_eq!(named.find(OsStr::new(name)).unwrap().is_some(), there, "{name}");
        }
        for (path, listing) in
            [("", Some(1)), ("b", Some(2)), ("b/c", Some(3)), ("b/file", None), ("z/last", None)]
        {
            assert_eq!(tree.get(Path::new(path)).unwrap().unwrap().listing, listing, "{path}");
        }
        for path in ["c", "file", "last", "b/c/file", "a/file", "zz"] {
            assert_eq!(tree.get(Path::new(path)).unwrap(), None, "{path}");
        }
    }

    #[test]
    fn what_is_forgotten_has_changed_and_nothing_else_has() {
        let mut tree = nested();
        for path in ["b", "b/file", "none", "z/none"] {
            tree.forget(Path::new(path)).unwrap();
        }
        let known = nested();
        for path in ["", "a", "b", "b/c", "b/file", "d", "z", "z/last"] {
            let [now, before] =
                [&tree, &known].map(|tree| tree.get(Path::new(path)).unwrap().unwrap());
            assert_eq!(
                now.stat.unchanged_since(&before.stat),
                !["b", "b/file"].contains(&path),
                "{path}"
            );
        }
        assert_eq!(walked(&tree), walked(&known));
    }

    #[test]
    fn no_depth_is_too_deep() {
        const LEVELS: usize = 100_000;
        let mut tree = Tree::new();
        for level in 0..=LEVELS {
            let mut listing = Listing::default();
            listing.push(&entry("d", (level < LEVELS).then(|| tree.reserve()))).unwrap();
            tree.put(level, &listing);
        }
        let deepest = "d/".repeat(LEVELS);
        tree.forget(Path::new(&deepest)).unwrap();
        let mut entries = tree.entries(Path::new("/d"));
        assert_eq!(
            entries
                .by_ref()
                .map(Result::unwrap)
                .filter(|entry| entry.stat.changed.seconds == i64::MIN)
                .count(),
            1
        );
        assert_eq!(entries.path(), Path::new("/d").join(&deepest));
        assert_eq!(tree.clone(), tree);
    }

    #[test]
    fn a_tree_that_leads_into_itself_or_nowhere_is_an_error() {
        for names in [["root", "root"], ["root", "beyond"]] {
            let mut tree = nested();
            let mut listing = Listing::default();
            names.iter().for_each(|name| {
                listing.push(&entry(name, Some(if *name == "root" { 1 } else { 99 }))).unwrap()
            });
            tree.put(3, &listing);
            let entries = tree.entries(Path::new("/"));
            assert!(entries.take(1000).last().unwrap().is_err(), "{names:?}");
        }
        let mut tree = nested();
        tree.count += 1;
        assert!(tree.entries(Path::new("/")).last().unwrap().is_err());
        tree.packed.truncate(10);
        assert!(tree.entries(Path::new("/")).next().unwrap().is_err());
    }
}
