//! What is in a dump: the table of contents of pg_dump's directory format, `toc.dat`.
//!
//! Read by us because pg_restore tells it as lines of text, which do not say where a name ends. The
//! format is that of PostgreSQL's archives
//! 1.12 (9.0) to 1.16 (17, 18): numbers of a fixed size with a sign before them, strings with their
//! length.

use std::borrow::Cow;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use crate::host::beneath;

/// Bytes of a table of contents: a hundred thousand tables have less.
const LARGEST: u64 = 1 << 30;
/// Each has a field more than the one before.
const TABLE_ACCESS_METHOD: (u8, u8) = (1, 14);
const COMPRESSION_NAMED: (u8, u8) = (1, 15);
const KIND: (u8, u8) = (1, 16);

/// When something is made, by pg_dump's words.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Section {
    #[default]
    None,
    PreData,
    Data,
    PostData,
}

/// One thing in a dump.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its number in the dump.
    pub id: i64,
    /// Its number in the server's catalog; 0 if it has none.
    pub oid: u32,
    /// Its name.
    pub tag: String,
    /// What it is: `TABLE`, `TABLE DATA`, `ACL`.
    pub kind: String,
    /// Before, with or after the data; nothing of it for what goes with another entry.
    pub section: Section,
    /// The statements that make it.
    pub definition: String,
    /// The statement that would remove it.
    pub drop: String,
    /// Its schema, if it is in one.
    pub schema: Option<String>,
    /// The role that owns it, if it has an owner.
    pub owner: Option<String>,
    /// What it needs, by number.
    pub needs: Vec<i64>,
    /// All of that is UTF-8. It is not in a database whose server does not know the encoding.
    pub is_whole: bool,
}

/// Reads the table of contents of the dump at `directory`, in its order: what is needed comes
/// first.
pub(crate) fn read(directory: &Path) -> Result<Vec<Entry>> {
    let path = directory.join("toc.dat");
    let bytes = beneath::read(&path, LARGEST)?;
    parse(&bytes).with_context(|| {
        format!("{} is not a list of contents as pg_dump writes it", path.display())
    })
}

fn parse(bytes: &[u8]) -> Result<Vec<Entry>> {
    let mut reader = Reader { rest: bytes, integer: 0, is_whole: true };
    ensure!(reader.take(5)? == b"PGDMP", "it begins otherwise");
    let [major, minor, _, integer, _, _] = reader.array()?;
    let version = (major, minor);
    ensure!(((1, 12)..(2, 0)).contains(&version), "its format is {major}.{minor}");
    ensure!((1..=8).contains(&integer), "its numbers have {integer} bytes");
    reader.integer = usize::from(integer);
    match version >= COMPRESSION_NAMED {
        true => drop(reader.take(1)?),
        false => drop(reader.number()?),
    }
    // When it was made, in seven numbers; of what, by which versions.
    for _ in 0..7 {
        reader.number()?;
    }
    for _ in 0..3 {
        reader.text()?;
    }
    let count = reader.number()?;
    let mut entries = Vec::new();
    for _ in 0..count {
        entries.push(reader.entry(version)?);
    }
    // A field more or less in a format that is not known yet would be seen here.
    ensure!(
        reader.rest.is_empty(),
        "{} bytes are left (its format is {major}.{minor})",
        reader.rest.len()
    );
    Ok(entries)
}

struct Reader<'a> {
    rest: &'a [u8],
    /// Bytes of a number.
    integer: usize,
    /// Every text so far was UTF-8.
    is_whole: bool,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length).context("it ends too early")?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        Ok(self.take(N)?.try_into()?)
    }

    fn number(&mut self) -> Result<i64> {
        let [sign] = self.array()?;
        let value = self
            .take(self.integer)?
            .iter()
            .rev()
            .fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
        let value = i64::try_from(value)?;
        Ok(if sign == 0 { value } else { -value })
    }

    fn text(&mut self) -> Result<Option<String>> {
        match self.number()? {
            length if length < 0 => Ok(None),
            length => {
                let bytes = self.take(usize::try_from(length)?)?;
                let text = String::from_utf8_lossy(bytes);
                self.is_whole &= matches!(text, Cow::Borrowed(_));
                Ok(Some(text.into_owned()))
            }
        }
    }

    fn entry(&mut self, version: (u8, u8)) -> Result<Entry> {
        self.is_whole = true;
        let id = self.number()?;
        // Whether it has data, and the catalog in which it is.
        self.number()?;
        self.text()?;
        let oid = self.text()?.unwrap_or_default().parse()?;
        let tag = self.text()?.unwrap_or_default();
        let kind = self.text()?.unwrap_or_default();
        let section = match self.number()? {
            2 => Section::PreData,
            3 => Section::Data,
            4 => Section::PostData,
            _ => Section::None,
        };
        let definition = self.text()?.unwrap_or_default();
        let drop = self.text()?.unwrap_or_default();
        // How it is copied.
        self.text()?;
        let schema = self.text()?;
        // Its tablespace.
        self.text()?;
        if version >= TABLE_ACCESS_METHOD {
            self.text()?;
        }
        if version >= KIND {
            self.number()?;
        }
        let owner = self.text()?;
        // Whether it has OIDs of old.
        self.text()?;
        let mut needs = Vec::new();
        while let Some(number) = self.text()? {
            needs.push(number.parse()?);
        }
        // The file with its data.
        self.text()?;
        if id <= 0 || kind.is_empty() {
            bail!("it has an entry {id} of kind '{kind}'");
        }
        let named = |name: Option<String>| name.filter(|name| !name.is_empty());
        Ok(Entry {
            id,
            oid,
            tag,
            kind,
            section,
            definition,
            drop,
            schema: named(schema),
            owner: named(owner),
            needs,
            is_whole: self.is_whole,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(value: i64) -> Vec<u8> {
        [vec![u8::from(value < 0)], u32::try_from(value.abs()).unwrap().to_le_bytes().to_vec()]
            .concat()
    }

    fn text(text: Option<&str>) -> Vec<u8> {
        text.map_or_else(
            || number(-1),
            |text| [number(i64::try_from(text.len()).unwrap()), text.into()].concat(),
        )
    }

    /// An archive with one table.
    fn archive(minor: u8) -> Vec<u8> {
        let mut all = [b"PGDMP".to_vec(), vec![1, minor, 0, 4, 8, 3]].concat();
        all.extend(if minor >= 15 { vec![0] } else { number(0) });
        all.extend((0..7).flat_map(|_| number(1)));
        all.extend((0..3).flat_map(|_| text(Some("15"))));
        all.extend(number(1));
        all.extend([number(7), number(0), text(Some("1259")), text(Some("16386"))].concat());
        all.extend(
            [
                text(Some("a\nb; TABLE DATA")),
                text(Some("TABLE")),
                number(2),
                text(Some("CREATE")),
                text(Some("DROP")),
            ]
            .concat(),
        );
        all.extend([text(None), text(Some("public")), text(Some(""))].concat());
        if minor >= 14 {
            all.extend(text(Some("heap")));
        }
        if minor >= 16 {
            all.extend(number(114));
        }
        all.extend(
            [text(Some("git")), text(Some("false")), text(Some("3")), text(None), text(None)]
                .concat(),
        );
        all
    }

    #[test]
    fn every_format_is_read_and_what_is_none_is_refused() {
        for minor in 12..=16 {
            let read = parse(&archive(minor)).unwrap();
            let expected = Entry {
                id: 7,
                oid: 16386,
                tag: "a\nb; TABLE DATA".to_owned(),
                kind: "TABLE".to_owned(),
                section: Section::PreData,
                definition: "CREATE".to_owned(),
                drop: "DROP".to_owned(),
                schema: Some("public".to_owned()),
                owner: Some("git".to_owned()),
                needs: vec![3],
                is_whole: true,
            };
            assert_eq!(read, [expected], "1.{minor}");
        }
        let whole = archive(14);
        for end in 0..whole.len() {
            assert!(parse(&whole[..end]).is_err(), "{end} bytes were taken for all");
        }
        assert!(parse(&[whole, vec![0]].concat()).is_err(), "more than all was taken for all");
        assert!(parse(&archive(11)).is_err());
    }
}
