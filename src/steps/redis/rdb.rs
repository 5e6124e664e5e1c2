//! The start of an RDB file, as far as needed to tell which save it is of.

use std::io::Read;

use anyhow::{Context, Result, bail, ensure};

/// Opcode of a field of the header.
const AUX: u8 = 0xFA;
/// More fields than any server writes.
const FIELDS: usize = 64;
/// Longer than any field that a server writes there.
const LENGTH: u64 = 1 << 20;

/// The server's time of the fork that wrote the file, in seconds since 1970.
pub fn ctime(file: &mut impl Read) -> Result<i64> {
    let magic = bytes(file, 9).context("it is too short for an RDB file")?;
    // Valkey 9 has a magic of its own.
    ensure!(magic.starts_with(b"REDIS") || magic.starts_with(b"VALKEY"), "it is not an RDB file");
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

fn bytes(file: &mut impl Read, length: u64) -> Result<Vec<u8>> {
    ensure!(length <= LENGTH, "its header is damaged");
    let mut bytes = Vec::new();
    file.take(length).read_to_end(&mut bytes)?;
    ensure!(bytes.len() as u64 == length, "it ends in its header");
    Ok(bytes)
}

fn integer(file: &mut impl Read, length: u64) -> Result<u64> {
    Ok(bytes(file, length)?.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

/// A length-prefixed string, or an integer that stands for its digits.
fn string(file: &mut impl Read) -> Result<Vec<u8>> {
    let first = integer(file, 1)? as u8;
    let low = u64::from(first & 0x3F);
    let length = match first >> 6 {
        0 => low,
        1 => low << 8 | integer(file, 1)?,
        // Big-endian, unlike the integers below.
        2 if first == 0x80 => bytes(file, 4)?.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)),
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
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn a_header_of_redis_7() {
        let file = b"REDIS0010\xfa\x09redis-ver\x067.0.15\xfa\x0aredis-bits\xc0\x40\xfa\x05ctime\xc2\x6d\x0c\xc7\x65\xfa";
        assert_eq!(ctime(&mut file.as_slice()).unwrap(), 0x65c7_0c6d);
    }

    #[test]
    fn ctime_as_digits() {
        assert_eq!(ctime(&mut b"VALKEY080\xfa\x05ctime\x0a4000000000".as_slice()).unwrap(), 4_000_000_000);
    }

    #[test]
    fn what_is_not_one() {
        for file in [
            &b""[..],
            b"REDIS",
            b"GIF89a....",
            b"REDIS0010\xfe\x00",
            b"REDIS0010\xfa\x05ctime\xc2\x6d",
            b"REDIS0010\xfa\x80\xff\xff\xff\xff",
        ] {
            assert!(ctime(&mut &file[..]).is_err(), "{file:?}");
        }
    }
}
