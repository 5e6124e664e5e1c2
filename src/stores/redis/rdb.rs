//! Reads the header of an RDB file: its format, and the time of the save that wrote it.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use crate::host::beneath::Directory;

/// The length of the magic, bytes: the format's name and its version.
const MAGIC: u64 = 9;
/// The opcode before a field of the header.
const AUX: u8 = 0xFA;
/// How many fields are read. No server writes as many.
const FIELDS: usize = 64;
/// The longest field that is read, bytes. No server writes one as long.
const LENGTH: u64 = 1 << 20;

/// The format of an RDB file. Valkey uses its own since version 9.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RdbFormat {
    /// That of Redis, and of Valkey before version 9.
    Redis,
    /// That of Valkey since version 9.
    Valkey,
}

impl RdbFormat {
    /// Reads the format from the file's first bytes.
    pub fn read(file: &mut impl Read) -> Result<Self> {
        let magic = bytes(file, MAGIC).context("it is too short for an RDB file")?;
        match magic {
            magic if magic.starts_with(b"REDIS") => Ok(Self::Redis),
            magic if magic.starts_with(b"VALKEY") => Ok(Self::Valkey),
            _ => bail!("it is not an RDB file"),
        }
    }

    /// Reads the format of the file at `path`, which is opened without following links of others.
    pub fn at(path: &Path) -> Result<Self> {
        let (directory, name) = Directory::of(path)?;
        Self::read(&mut directory.file(Path::new(&name))?)
            .with_context(|| path.display().to_string())
    }

    /// The names under which servers that read the format install the program `tool`, the preferred
    /// one first.
    pub fn programs(self, tool: &str) -> Vec<String> {
        let names: &[&str] = match self {
            Self::Redis => &["redis", "valkey"],
            Self::Valkey => &["valkey"],
        };
        names.iter().map(|name| format!("{name}-{tool}")).collect()
    }
}

/// Whether the output of `redis-check-rdb` means that it does not know the format. Then it is too
/// old to check the file, which may well be intact.
pub fn is_unknown_format(output: &str) -> bool {
    ["Can't handle RDB format version", "Wrong signature"]
        .iter()
        .any(|words| output.contains(words))
}

/// Reads the time of the fork that wrote the file, by the server's clock, in seconds since 1970.
pub fn read_ctime(file: &mut impl Read) -> Result<i64> {
    RdbFormat::read(file)?;
    for _ in 0..FIELDS {
        if bytes(file, 1)? != [AUX] {
            break;
        }
        let (name, value) = (string(file)?, string(file)?);
        if name == b"ctime" {
            let value = String::from_utf8_lossy(&value).into_owned();
            return value.parse().with_context(|| format!("its ctime is {value:?}"));
        }
    }
    bail!("its header has no ctime")
}

/// Reads exactly `length` bytes.
fn bytes(file: &mut impl Read, length: u64) -> Result<Vec<u8>> {
    ensure!(length <= LENGTH, "its header is damaged");
    let mut bytes = Vec::new();
    file.take(length).read_to_end(&mut bytes)?;
    ensure!(bytes.len() as u64 == length, "it ends in its header");
    Ok(bytes)
}

/// Reads a little-endian integer of `length` bytes.
fn integer(file: &mut impl Read, length: u64) -> Result<u64> {
    Ok(bytes(file, length)?.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

/// Reads a string: one with its length before it, or one that is stored as an integer.
fn string(file: &mut impl Read) -> Result<Vec<u8>> {
    let first = integer(file, 1)? as u8;
    let low = u64::from(first & 0x3F);
    let length = match first >> 6 {
        0 => low,
        1 => low << 8 | integer(file, 1)?,
        // Big-endian, unlike the integers below.
        2 if first == 0x80 => {
            bytes(file, 4)?.iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
        }
        3 => {
            let value = match low {
                0 => i64::from(integer(file, 1)? as i8),
                1 => i64::from(integer(file, 2)? as i16),
                2 => i64::from(integer(file, 4)? as i32),
                _ => bail!("its header has a string of an unknown kind"),
            };
            return Ok(value.to_string().into_bytes());
        }
        _ => bail!("its header has a length of an unknown kind"),
    };
    bytes(file, length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_of_redis_7() {
        let file = b"REDIS0010\xfa\x09redis-ver\x067.0.15\xfa\x0aredis-bits\xc0\x40\xfa\x05ctime\xc2\x6d\x0c\xc7\x65\xfa";
        assert_eq!(read_ctime(&mut file.as_slice()).unwrap(), 0x65c7_0c6d);
    }

    #[test]
    fn ctime_as_digits() {
        assert_eq!(
            read_ctime(&mut b"VALKEY080\xfa\x05ctime\x0a4000000000".as_slice()).unwrap(),
            4_000_000_000
        );
    }

    #[test]
    fn a_format_has_programs_that_know_it() {
        assert_eq!(
            RdbFormat::read(&mut &b"REDIS0011\xfa"[..]).unwrap().programs("check-rdb"),
            ["redis-check-rdb", "valkey-check-rdb"]
        );
        assert_eq!(
            RdbFormat::read(&mut &b"VALKEY080\xfa"[..]).unwrap().programs("server"),
            ["valkey-server"]
        );
        assert!(RdbFormat::read(&mut &b"GIF89a..."[..]).is_err());
        for said in [
            "[offset 0] Checking RDB file x\n--- RDB ERROR DETECTED ---\n[offset 9] Can't handle \
             RDB format version 80",
            "Wrong signature trying to load DB from file",
        ] {
            assert!(is_unknown_format(said));
        }
        assert!(!is_unknown_format("[offset 107] RDB CRC error"));
    }

    #[test]
    fn a_damaged_header_is_refused() {
        for file in [
            &b""[..],
            b"REDIS",
            b"GIF89a....",
            b"REDIS0010\xfe\x00",
            b"REDIS0010\xfa\x05ctime\xc2\x6d",
            b"REDIS0010\xfa\x80\xff\xff\xff\xff",
        ] {
            assert!(read_ctime(&mut &file[..]).is_err(), "{file:?}");
        }
    }
}
