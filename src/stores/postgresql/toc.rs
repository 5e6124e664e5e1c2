//! Reads the table of contents of a dump in pg_dump's directory format, `toc.dat`.
//!
//! The output of `pg_restore --list` cannot be parsed: its lines do not show where a name ends. The
//! format is that of PostgreSQL's archives 1.12 (PostgreSQL 9.0) to 1.16 (17, 18). A number is a
//! sign byte and a fixed number of bytes; a string is its length as a number, and its bytes.

use std::borrow::Cow;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use crate::host::beneath;

/// The largest table of contents that is read, in bytes. That of a hundred thousand tables is
/// smaller.
const MAX_SIZE: u64 = 1 << 30;
/// The versions of the format that introduced a field.
const TABLE_ACCESS_METHOD: (u8, u8) = (1, 14);
const COMPRESSION_NAMED: (u8, u8) = (1, 15);
const RELATION_KIND: (u8, u8) = (1, 16);

/// The section of a dump in which an entry is restored, as in `pg_restore --section`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum TocSection {
    #[default]
    None,
    PreData,
    Data,
    PostData,
}

/// An entry of the table of contents: one object of the database, or its data, comment or
/// privileges.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TocEntry {
    /// The number of the entry in the dump.
    pub id: i64,
    /// The OID of the object; 0 if it has none.
    pub oid: u32,
    /// The name of the object.
    pub tag: String,
    /// The kind of the entry, such as `TABLE`, `TABLE DATA` or `ACL`.
    pub kind: String,
    /// When the entry is restored; `None` for an entry that is restored together with another.
    pub section: TocSection,
    /// The statements that create the object.
    pub definition: String,
    /// The statement that drops the object.
    pub drop: String,
    /// The schema of the object, if it is in one.
    pub schema: Option<String>,
    /// The role that owns the object, if it has an owner.
    pub owner: Option<String>,
    /// The numbers of the entries that this one depends on.
    pub needs: Vec<i64>,
    /// All strings of the entry are UTF-8. That is not so in a database whose encoding the server
    /// cannot convert.
    pub is_utf8: bool,
}

/// Reads the table of contents of the dump at `directory`, in its order: an entry comes after those
/// that it depends on.
pub(crate) fn read(directory: &Path) -> Result<Vec<TocEntry>> {
    let path = directory.join("toc.dat");
    let bytes = beneath::read(&path, MAX_SIZE)?;
    parse(&bytes)
        .with_context(|| format!("{} is not a table of contents of pg_dump", path.display()))
}

fn parse(bytes: &[u8]) -> Result<Vec<TocEntry>> {
    let mut reader = TocReader { rest: bytes, integer: 0, is_utf8: true };
    ensure!(reader.take(5)? == b"PGDMP", "the magic number is missing");
    let [major, minor, _, integer, _, _] = reader.array()?;
    let version = (major, minor);
    ensure!(((1, 12)..(2, 0)).contains(&version), "unknown format {major}.{minor}");
    ensure!((1..=8).contains(&integer), "numbers of {integer} bytes");
    reader.integer = usize::from(integer);
    match version >= COMPRESSION_NAMED {
        true => drop(reader.take(1)?),
        false => drop(reader.number()?),
    }
    // The time of the dump in seven numbers, the database's name, and the versions of the server
    // and of pg_dump.
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
    // A newer format may have more fields or fewer.
    ensure!(
        reader.rest.is_empty(),
        "{} more bytes than expected (format {major}.{minor})",
        reader.rest.len()
    );
    Ok(entries)
}

struct TocReader<'a> {
    /// The bytes that are not read yet.
    rest: &'a [u8],
    /// The size of a number without its sign, in bytes.
    integer: usize,
    /// All strings of the current entry so far are UTF-8.
    is_utf8: bool,
}

impl<'a> TocReader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let (taken, rest) =
            self.rest.split_at_checked(length).context("the file ends too early")?;
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
                self.is_utf8 &= matches!(text, Cow::Borrowed(_));
                Ok(Some(text.into_owned()))
            }
        }
    }

    fn entry(&mut self, version: (u8, u8)) -> Result<TocEntry> {
        self.is_utf8 = true;
        let id = self.number()?;
        // Whether the entry has data, and the OID of the object's catalog.
        self.number()?;
        self.text()?;
        let oid = self.text()?.unwrap_or_default().parse()?;
        let tag = self.text()?.unwrap_or_default();
        let kind = self.text()?.unwrap_or_default();
        let section = match self.number()? {
            2 => TocSection::PreData,
            3 => TocSection::Data,
            4 => TocSection::PostData,
            _ => TocSection::None,
        };
        let definition = self.text()?.unwrap_or_default();
        let drop = self.text()?.unwrap_or_default();
        // The COPY statement.
        self.text()?;
        let schema = self.text()?;
        // The tablespace.
        self.text()?;
        if version >= TABLE_ACCESS_METHOD {
            self.text()?;
        }
        if version >= RELATION_KIND {
            self.number()?;
        }
        let owner = self.text()?;
        // Whether the table has OIDs (before PostgreSQL 12).
        self.text()?;
        let mut needs = Vec::new();
        while let Some(number) = self.text()? {
            needs.push(number.parse()?);
        }
        // The file with the data.
        self.text()?;
        if id <= 0 || kind.is_empty() {
            bail!("entry {id} has kind '{kind}'");
        }
        let non_empty = |name: Option<String>| name.filter(|name| !name.is_empty());
        Ok(TocEntry {
            id,
            oid,
            tag,
            kind,
            section,
            definition,
            drop,
            schema: non_empty(schema),
            owner: non_empty(owner),
            needs,
            is_utf8: self.is_utf8,
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
    fn every_format_is_read_and_damaged_files_are_refused() {
        for minor in 12..=16 {
            let read = parse(&archive(minor)).unwrap();
            let expected = TocEntry {
                id: 7,
                oid: 16386,
                tag: "a\nb; TABLE DATA".to_owned(),
                kind: "TABLE".to_owned(),
                section: TocSection::PreData,
                definition: "CREATE".to_owned(),
                drop: "DROP".to_owned(),
                schema: Some("public".to_owned()),
                owner: Some("git".to_owned()),
                needs: vec![3],
                is_utf8: true,
            };
            assert_eq!(read, [expected], "1.{minor}");
        }
        let complete = archive(14);
        for end in 0..complete.len() {
            assert!(parse(&complete[..end]).is_err(), "{end} bytes were accepted");
        }
        assert!(parse(&[complete, vec![0]].concat()).is_err(), "an additional byte was accepted");
        assert!(parse(&archive(11)).is_err());
    }
}
